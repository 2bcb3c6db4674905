"""Programs of the tests in pods of their own; each tells by HTTP what it has found so far."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.cluster import CONTROL_PLANE
from tests.e2e.support.kubectl import Kubectl, Object

_PORT = 8000


@dataclass(frozen=True, slots=True)
class Running:
    """A program that runs on."""

    kubectl: Kubectl
    pod: str

    def told(self, path: str = "/") -> Any:
        """Return what it has found so far, or what it answers to another path.

        Raises:
            RuntimeError: it does not answer.
        """
        return json.loads(self.kubectl.ask_pod(self.pod, _PORT, path))


@contextmanager
def running(
    kubectl: Kubectl,
    image: str,
    source: Path,
    *arguments: str,
    name: str,
    account: str | None = None,
) -> Iterator[Running]:
    """Run a Python program in a pod until the end.

    Args:
        kubectl: within the pod's namespace.
        image: has a Python.
        source: the program: one file, which answers on port 8000 once it is ready.
        arguments: of the program.
        name: of the pod.
        account: the service account whose token it gets; None: no token.
    """
    program = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {source.name: source.read_text()},
    }
    pod = _pod(name, image, [source.name, *arguments], account)
    if kubectl.exists("nodes", "-l", CONTROL_PLANE):  # that of a hosted cluster is not shown
        pod["spec"]["nodeSelector"] = {CONTROL_PLANE: ""}  # no test drains or stops it
    kubectl.apply(program, pod)
    try:
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        yield Running(kubectl, name)
    finally:
        kubectl.run("delete", f"pod/{name}", f"configmap/{name}", "--now", "--ignore-not-found")


def _pod(name: str, image: str, command: list[str], account: str | None) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": name}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": account is not None,
            "serviceAccountName": account or "default",
            "terminationGracePeriodSeconds": 1,
            "tolerations": [{"key": CONTROL_PLANE, "operator": "Exists"}],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", *command],
                    "workingDir": "/program",
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "readinessProbe": {
                        "httpGet": {"path": "/", "port": _PORT},
                        "periodSeconds": 1,
                    },
                    "volumeMounts": [{"name": "program", "mountPath": "/program"}],
                }
            ],
            "volumes": [{"name": "program", "configMap": {"name": name}}],
        },
    }
