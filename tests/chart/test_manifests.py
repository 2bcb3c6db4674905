"""manifests/ is what the chart renders, and every overlay builds to what Kubernetes takes."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.chart.schemas import problems
from tests.support.binaries import require_go_program
from tests.support.helm import Object, containers, one, pod_of

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ("demo", "existing-etcd", "operator", "add-to-your-deployment", "../elections")


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("manifests", ROOT / "tools" / "manifests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(overlay: str) -> list[Object]:
    kustomize = require_go_program("kustomize")
    done = subprocess.run(
        [str(kustomize), "build", str(ROOT / "manifests" / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def test_the_manifests_are_fresh() -> None:
    made = tool().files(str(require_go_program("helm4")))
    for path, text in made.items():
        there = (ROOT / "manifests" / path).read_text()
        assert there == text, f"manifests/{path}: run python tools/manifests.py HELM"


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_builds_to_what_kubernetes_knows(overlay: str, version: str) -> None:
    wrong = {
        f"{thing['kind']}/{thing['metadata']['name']}": found
        for thing in build(overlay)
        if (found := problems(thing, version))
    }
    assert not wrong


def test_the_demo_has_everything() -> None:
    kinds = [thing["kind"] for thing in build("demo")]
    assert kinds.count("Deployment") == kinds.count("StatefulSet") == kinds.count("CronJob") == 1


@pytest.mark.parametrize("overlay", ["existing-etcd", "add-to-your-deployment"])
def test_the_overlays_with_another_etcd_name_it_everywhere(overlay: str) -> None:
    pod = pod_of(one(build(overlay), "Deployment"))
    assert pod is not None
    sidecar = pod["initContainers"][0]
    assert "--endpoints=https://etcd.example:2379" in sidecar["args"]
    assert "demo-etcd" not in str(pod)
    assert {"name": "LEADER_SIDECAR_CERT", "value": "/etc/etcd-client/tls/tls.crt"} in sidecar[
        "env"
    ]
    mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
    assert mounted == {v["name"] for v in pod["volumes"]}


def test_a_deployment_that_gets_the_sidecar_stays_what_it_was() -> None:
    pod = pod_of(one(build("add-to-your-deployment"), "Deployment"))
    assert pod is not None
    (app,) = pod["containers"]
    assert app["image"] == "your-app:1"
    assert app["volumeMounts"] == [
        {"name": "leader-sidecar", "mountPath": "/run/leader-sidecar", "readOnly": True}
    ]
    assert "--election=/leader-sidecar/leader-sidecar/your-app" in pod["initContainers"][0]["args"]
