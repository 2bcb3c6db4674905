"""Makes manifests/ from the chart: `python tools/manifests.py HELM` (Helm 4, or 3)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "leader-sidecar"
CRDS = ROOT / "charts" / "leader-sidecar-crds"
TARGET = ROOT / "manifests"

NAMESPACE = "leader-sidecar"
_COMMON = ("tests.enabled=false", "rbac.admissionPolicy=true")
_OTHERS = "https://etcd.example:2379"
_EXISTING = (
    "etcd.enabled=false",
    f"etcd.external.endpoints={_OTHERS}",
    "etcd.external.tlsSecret=etcd-client",
    "etcd.external.clientCertificate=true",
)
_OPERATED = ("operator.enabled=true",)
_KNOWN = ("--api-versions", "leader-sidecar.io/v1alpha1")
_YOURS = (
    *_EXISTING,
    "forwarder.enabled=false",
    "sidecar.health.http=",
    "master.etcdAccess.enabled=false",
)
_HEAD = "# Made from the chart by tools/manifests.py; a test holds it to that.\n"

Object = dict[str, Any]


def render(
    helm: str, choices: Iterable[str], release: str = "demo", chart: Path = CHART
) -> list[Object]:
    """Return a chart's objects without what is Helm's own, hooks above all."""
    sets = [part for choice in choices for part in ("--set", choice)]
    sets += [part for choice in _COMMON if chart == CHART for part in ("--set", choice)]
    where = ("-n", NAMESPACE, "--kube-version", "1.34", "--no-hooks", *_KNOWN)
    done = subprocess.run(
        [helm, "template", release, str(chart), *where, *sets],
        capture_output=True,
        text=True,
        check=True,
    )
    return [_plain(found) for found in yaml.safe_load_all(done.stdout) if found]


def _plain(thing: Object) -> Object:
    labels = thing["metadata"].get("labels", {})
    labels.pop("helm.sh/chart", None)
    if "app.kubernetes.io/managed-by" in labels:
        labels["app.kubernetes.io/managed-by"] = "kustomize"
    return thing


def files(helm: str) -> dict[str, str]:
    """Return every file that is made, by its path below manifests/."""
    all_of_it = render(helm, ())
    policies = [o for o in all_of_it if o["kind"].startswith("ValidatingAdmissionPolicy")]
    etcd = [o for o in all_of_it if _component(o) in {"etcd", "defragmentation"}]
    masters = [o for o in all_of_it if o not in policies and o not in etcd]
    operator = [o for o in render(helm, _OPERATED) if o not in all_of_it]
    return {
        "elections/kind.yaml": _text(map(_kept, render(helm, (), chart=CRDS))),
        "overlays/operator/operator.yaml": _text(operator),
        "base/masters.yaml": _text(masters),
        "base/admission-policy.yaml": _text(policies),
        "overlays/demo/etcd.yaml": _text(etcd),
        "overlays/existing-etcd/endpoints.yaml": _text([_to_existing(render(helm, _EXISTING))]),
        "overlays/add-to-your-deployment/sidecar.yaml": _text([_for_yours(render(helm, _YOURS))]),
        "overlays/add-to-your-deployment/permissions.yaml": _text(
            o
            for o in render(helm, _YOURS, "your-app")
            if o["kind"] in {"ServiceAccount", "Role", "RoleBinding"}
        ),
    }


def _kept(thing: Object) -> Object:
    thing["metadata"].pop("annotations", None)  # Helm's own
    return thing


def _component(thing: Object) -> str:
    labels: Mapping[str, str] = thing["metadata"].get("labels", {})
    return labels["app.kubernetes.io/component"]


def _deployment(objects: list[Object]) -> Object:
    (found,) = (o for o in objects if o["kind"] == "Deployment")
    return found


def _to_existing(objects: list[Object]) -> Object:
    """Return what another etcd changes in the Masters' Deployment, as a patch."""
    pod = _deployment(objects)["spec"]["template"]["spec"]
    (sidecar,), (master,) = pod["initContainers"], pod["containers"]
    credentials = [m for m in sidecar["volumeMounts"] if m["name"].startswith("etcd-")]
    volumes = [v for v in pod["volumes"] if v["name"].startswith("etcd-")]
    spec = {
        "initContainers": [
            {
                "name": "leader-sidecar",
                "args": sidecar["args"],
                "env": _of_etcd(sidecar["env"], "LEADER_SIDECAR_"),
                "volumeMounts": credentials,
            }
        ],
        "containers": [
            {
                "name": "master",
                "env": _of_etcd(master["env"], "CRAWLER_"),
                "volumeMounts": [
                    m for m in master["volumeMounts"] if m["name"].startswith("etcd-")
                ],
            }
        ],
        "volumes": volumes,
    }
    return _patch("demo", spec)


def _of_etcd(env: list[Object], prefix: str) -> list[Object]:
    return [variable for variable in env if variable["name"].startswith(prefix)]


def _for_yours(objects: list[Object]) -> Object:
    """Return what makes a Deployment of yours stand in an election, as a patch."""
    pod = _deployment(objects)["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    sidecar["args"] = [
        f"--election=/leader-sidecar/{NAMESPACE}/your-app" if a.startswith("--election=") else a
        for a in sidecar["args"]
    ]
    spec = {
        "serviceAccountName": "your-app",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": pod["terminationGracePeriodSeconds"],
        "initContainers": [sidecar],
        "containers": [
            {
                "name": "app",
                "volumeMounts": [
                    {"name": "leader-sidecar", "mountPath": "/run/leader-sidecar", "readOnly": True}
                ],
            }
        ],
        "volumes": [v for v in pod["volumes"] if v["name"] != "tmp"],
    }
    return _patch("your-app", spec)


def _patch(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"template": {"spec": spec}},
    }


def _text(objects: Iterable[Object]) -> str:
    return _HEAD + yaml.safe_dump_all(objects, sort_keys=False, width=120)


if __name__ == "__main__":
    for path, text in files(sys.argv[1]).items():
        (TARGET / path).parent.mkdir(parents=True, exist_ok=True)
        (TARGET / path).write_text(text)
        sys.stdout.write(f"manifests/{path}\n")
