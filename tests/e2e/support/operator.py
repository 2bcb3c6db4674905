"""The operator beside a release: its image, the kind Election, and what its replicas say."""

import re

from tests.e2e.support import tools
from tests.e2e.support.cluster import Cluster
from tests.e2e.support.engine import run
from tests.e2e.support.images import operator_image
from tests.e2e.support.kubectl import Object
from tests.e2e.support.release import Container, Release
from tests.e2e.support.sharing import folder
from tests.support.binaries import locked
from tests.support.helm import CHART
from tests.support.procs import inherited_environment, wait_until

KIND = "elections.leader-sidecar.io"
_KINDS_CHART = CHART.parent / "leader-sidecar-crds"
_HTTP = 8080
_WITHIN = 60.0  # seconds; a bound for a slow machine, not an expectation


def provide_operator(cluster: Cluster) -> None:
    """Bring the image into nodes that are ours, and the kind Election into the cluster."""
    with locked(folder() / "operator.lock"):
        if cluster.engine is not None:
            cluster.load(operator_image())
        install_kind(cluster)


def install_kind(cluster: Cluster, *choices: str) -> None:
    """Install or upgrade the chart with the kind, once per cluster, with `--set` choices."""
    where = (f"--kubeconfig={cluster.kubectl.kubeconfig}", "--namespace=default")
    sets = [part for choice in choices for part in ("--set", choice)]
    run(
        (
            tools.helm(), "upgrade", "--install", "leader-sidecar-crds", str(_KINDS_CHART),
            *where, *sets,
        ),
        {**inherited_environment(), "HELM_NO_PLUGINS": "1"},
    )  # fmt: skip
    cluster.kubectl.run("wait", "--for=condition=Established", f"crd/{KIND}", "--timeout=60s")


class Operator:
    """The replicas of a release's operator."""

    def __init__(self, release: Release) -> None:
        self._release = release

    @property
    def pods(self) -> list[str]:
        """The names of its pods."""
        return [pod["metadata"]["name"] for pod in self._release.pods("operator")]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's values with these labels over all replicas."""
        return sum(self._metric(pod, name, labels) for pod in self.pods)

    def working(self) -> str:
        """Wait until one replica works; return its pod."""

        def found() -> str:
            name = "leader_sidecar_operator_is_leader"
            return next((pod for pod in self.pods if self._metric(pod, name, {})), "")

        return wait_until(found, "a replica of the operator works", _WITHIN)

    def container(self, pod: str) -> Container:
        """Return the container of a replica as it runs now."""
        return self._release.container(pod, "operator")

    def scale(self, replicas: int) -> None:
        """Have so many replicas; wait until the others are gone."""
        kubectl, name = self._release.kubectl, f"{self._release.name}-operator"
        kubectl.run("scale", f"deployment/{name}", f"--replicas={replicas}")
        if not replicas:
            which = ("-l", self._release.selector("operator"))
            kubectl.run("wait", "--for=delete", "pod", *which, "--timeout=120s")

    def _metric(self, pod: str, name: str, labels: dict[str, str]) -> float:
        try:
            told = self._release.kubectl.ask_pod(pod, _HTTP, "/metrics")
        except RuntimeError:
            return 0.0
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        lines = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", told, re.MULTILINE)
        return sum(float(value) for said, value in lines if wanted <= set(said.split(",")))


class Elect:
    """One Election, as kubectl shows it."""

    def __init__(self, release: Release, name: str, namespace: str) -> None:
        self.name = name
        self.kubectl = release.cluster.kubectl.within(namespace)

    @property
    def document(self) -> Object:
        """All of it."""
        return self.kubectl.get("elect", self.name)

    @property
    def status(self) -> Object:
        """Its status; empty where none is written yet."""
        found = self.document.get("status") or {}
        assert isinstance(found, dict)
        return found

    @property
    def row(self) -> list[str]:
        """The columns of `kubectl get elect`: name, leader, token, candidates, since, health."""
        return self.kubectl.run("get", "elect", self.name, "--no-headers").split()

    def annotate(self, to: str) -> None:
        """Ask for a handover by kubectl."""
        said = f"leader-sidecar.io/handover-to={to}"
        self.kubectl.run("annotate", "elect", self.name, said, "--overwrite")

    def shows(self, pod: str, token: int, candidates: int) -> None:
        """Wait until `kubectl get elect` shows these, and that all is well."""
        expected = [self.name, pod, str(token), str(candidates), "Healthy"]
        wait_until(
            lambda: [*self.row[:4], *self.row[5:]] == expected, f"{expected} is shown", _WITHIN
        )
