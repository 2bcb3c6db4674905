"""Requests from a pod of its own, and what came of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.support.kubectl import Kubectl, Object
from tests.support.procs import wait_until

_PROGRAM = Path(__file__).resolve().parents[1] / "load_program.py"
_PORT = 8000
_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of the requests so far.

    Attributes:
        longest_gap: seconds without a good answer.
        served_by: good answers by the Master that gave them.
    """

    sent: int
    answered: int
    failures: int
    failed: list[str]
    longest_gap: float
    slowest: float
    served_by: dict[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that go on."""

    kubectl: Kubectl
    pod: str

    def tally(self) -> Tally:
        """Return what came of them so far."""
        told: dict[str, Any] = json.loads(self.kubectl.ask_pod(self.pod, _PORT, "/"))
        told.pop("last_answer")
        return Tally(**told)

    def goes_on(self, more: int = 100) -> Tally:
        """Wait for some more answers."""
        until = self.tally().answered + more

        def enough() -> Tally | None:
            tally = self.tally()
            return tally if tally.answered >= until else None

        found = wait_until(enough, f"{more} more answers", _WITHIN)
        assert found is not None
        return found


@contextmanager
def load(kubectl: Kubectl, image: str, url: str, per_second: int = 40) -> Iterator[Load]:
    """Ask a URL from a pod until the end."""
    name = "load"
    program = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"load_program.py": _PROGRAM.read_text()},
    }
    kubectl.apply(program, _pod(name, image, url, per_second))
    try:
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s")
        under_way = Load(kubectl, name)
        under_way.goes_on(20)
        yield under_way
    finally:
        kubectl.run("delete", f"pod/{name}", f"configmap/{name}", "--now", "--ignore-not-found")


def _pod(name: str, image: str, url: str, per_second: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": "load"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            # No test drains or stops this node.
            "nodeSelector": {_CONTROL_PLANE: ""},
            "tolerations": [{"key": _CONTROL_PLANE, "operator": "Exists"}],
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
                    "command": ["python", "/load/load_program.py", url, str(per_second)],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "readinessProbe": {
                        "httpGet": {"path": "/", "port": _PORT},
                        "periodSeconds": 1,
                    },
                    "volumeMounts": [{"name": "program", "mountPath": "/load"}],
                }
            ],
            "volumes": [{"name": "program", "configMap": {"name": name}}],
        },
    }
