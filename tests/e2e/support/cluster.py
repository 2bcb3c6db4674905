"""A cluster of three nodes for a run of the tests, made by kind, and gone after it."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.e2e.support import tools
from tests.e2e.support.engine import NAME, Engine, UnfitMachineError, engine, run, say
from tests.e2e.support.images import Images, images
from tests.e2e.support.kubectl import Kubectl, Object, names
from tests.e2e.support.sharing import for_one_run

NODES = 3
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
"""The label of nodes that no test drains or stops, and their taint."""
OURS = {"leader-sidecar-e2e": "true"}
"""The label of the namespaces of tests."""
_PODS = "10.244.0.0/16"
_RULE = f"POSTROUTING --source {_PODS} ! --destination {_PODS} --jump MASQUERADE"
_MASQUERADE = f"iptables -t nat -C {_RULE} 2>/dev/null || iptables -t nat -A {_RULE}"
_MODULES = Path("/lib/modules")
"""kind mounts it into its nodes; a kernel without modules has none."""
_READY_WITHIN = "180s"
_CONFIG = """
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking: {{disableDefaultCNI: {without_network}, podSubnet: {pods}}}
kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    failCgroupV1: false
nodes: [{{role: control-plane}}, {{role: worker}}, {{role: worker}}]
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster to test on; without an engine it is somebody else's."""

    kubectl: Kubectl
    engine: Engine | None
    values: Path
    """Helm values for every release: images, storage, what is tolerated."""

    def on_node(self, node: str, *command: str) -> str:
        """Run a command in a node; skip the test where the nodes are not ours.

        Raises:
            RuntimeError: it failed.
        """
        return self.own_engine().run("exec", node, *command)

    def own_engine(self) -> Engine:
        """Return what runs the nodes; skip the test where they are not ours."""
        if self.engine is None:
            pytest.skip("the nodes of this cluster are not ours")
        return self.engine

    def workers(self) -> Sequence[str]:
        """Return the nodes that a test may take away."""
        return names(self.kubectl.get("nodes", "-l", f"!{CONTROL_PLANE}"))

    def load(self, *images: str) -> None:
        """Bring images of the engine into the nodes."""
        _load(self.own_engine(), *images)

    def connect_nodes(self) -> None:
        """Set the routes between the nodes' pods; they are gone after a node was stopped.

        Only what leaves the cluster gets another source address: members of etcd compare that of a
        peer with the names in its certificate.
        """
        nodes = [self._node(found) for found in self.kubectl.get("nodes")["items"]]
        for node in nodes:
            routes = [
                f"ip route replace {other.pods} via {other.address}"
                for other in nodes
                if other is not node
            ]
            self.on_node(node.name, "sh", "-ec", "; ".join([*routes, _MASQUERADE]))

    def _node(self, found: Object) -> "_Node":
        name = found["metadata"]["name"]
        # A node that was started again has another address, which Kubernetes learns only later.
        address = self.on_node(name, "hostname", "--all-ip-addresses").split()[0]
        return _Node(name, address, found["spec"]["podCIDR"])


@dataclass(frozen=True, slots=True)
class _Node:
    name: str
    address: str
    pods: str


@contextmanager
def cluster(values: Path) -> Iterator[Cluster]:
    """Make a cluster, or use that of `E2E_KUBECONFIG`; with `KEEP=1` it is left, and found again.

    Raises:
        UnfitMachineError: this machine cannot have one, or it could not be made.
    """
    given = os.environ.get("E2E_KUBECONFIG")
    with tempfile.TemporaryDirectory() as scratch:
        if given:
            extra = os.environ.get("E2E_VALUES")
            kubectl = Kubectl(tools.kubectl(), Path(given), Path(scratch))
            theirs = Cluster(kubectl, None, Path(extra) if extra else values)
            with (
                for_one_run(lambda: None, lambda: _wait_for_the_end_of_releases(theirs)),
                kubectl.served() as served,
            ):
                yield replace(theirs, kubectl=served)
            return
        podman = engine()
        kubectl = Kubectl(tools.kubectl(), podman.folder / "kubeconfig", Path(scratch))
        ours = Cluster(kubectl, podman, values)
        keep = os.environ.get("KEEP") == "1"
        with (
            for_one_run(
                lambda: _make(ours, podman, keep=keep),
                lambda: _wait_for_the_end_of_releases(ours) if keep else _delete(podman),
            ),
            kubectl.served() as served,
        ):
            yield replace(ours, kubectl=served)


def _make(ours: Cluster, podman: Engine, *, keep: bool) -> None:
    try:
        _begin(ours, podman, images(), keep=keep)
    except (RuntimeError, subprocess.TimeoutExpired) as failed:
        with suppress(RuntimeError, subprocess.TimeoutExpired):  # what failed first is told
            _delete(podman)
        raise UnfitMachineError(f"the cluster could not be made: {failed}") from failed


def _begin(made: Cluster, podman: Engine, found: Images, *, keep: bool) -> None:
    config = made.kubectl.kubeconfig
    if keep and _answers(made):
        say("uses the cluster that was kept")
    else:
        _delete(podman)
        say("makes a cluster of three nodes")
        _MODULES.mkdir(exist_ok=True)
        network = "false" if found.node_is_stock else "true"
        text = _CONFIG.format(without_network=network, pods=_PODS)
        settings = podman.folder / "cluster.yaml"
        settings.write_text(text)
        given = ("--config", str(settings), "--image", found.node, "--kubeconfig", str(config))
        _kind(podman, "create", "cluster", "--wait", _READY_WITHIN, *given)
    if not found.node_is_stock:
        made.connect_nodes()
    _load(podman, found.sidecar, found.crawler, found.etcd)
    made.kubectl.run("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s")
    made.kubectl.run(
        "-n", "kube-system", "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s"
    )


def _wait_for_the_end_of_releases(made: Cluster) -> None:
    selector = ",".join(f"{key}={value}" for key, value in OURS.items())
    made.kubectl.run("delete", "namespaces", "--selector", selector, "--timeout=240s")


def _answers(made: Cluster) -> bool:
    try:
        return len(made.kubectl.get("nodes")["items"]) == NODES
    except (RuntimeError, subprocess.TimeoutExpired):
        return False


def _kind(podman: Engine, *command: str) -> str:
    return run((tools.kind(), *command, "--name", NAME), podman.environment)


def _load(podman: Engine, *names: str) -> None:
    """Bring images into the nodes."""
    say("loads the images into the nodes")
    with tempfile.TemporaryDirectory(prefix="loading-", dir=podman.folder) as scratch:
        archive = Path(scratch) / "images.tar"
        podman.run("save", "--quiet", "--multi-image-archive", "--output", archive, *names)
        _kind(podman, "load", "image-archive", str(archive))


def _delete(podman: Engine) -> None:
    """Delete the cluster and its network, and whatever a run left that was killed."""
    _kind(podman, "delete", "cluster", "--kubeconfig", str(podman.folder / "kubeconfig"))
    networks = json.loads(podman.run("network", "ls", "--format", "json"))
    if NAME in {network.get("name", network.get("Name")) for network in networks}:
        podman.run("network", "rm", "--force", NAME)
    podman.run("volume", "prune", "--force")
