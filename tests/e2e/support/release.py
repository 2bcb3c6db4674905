"""A release of the chart in a namespace of its own, and what its sidecars say."""

import datetime as dt
import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.e2e.support import tools
from tests.e2e.support.cluster import OURS, Cluster
from tests.e2e.support.collecting import collect
from tests.e2e.support.engine import run
from tests.e2e.support.kubectl import Kubectl, Object, names
from tests.e2e.support.volumes import provide_volumes
from tests.support.helm import CHART
from tests.support.procs import inherited_environment, wait_until

STATUS = 4040
"""Where the sidecars answer, unless the values say otherwise."""
SIDECAR = "leader-sidecar"
"""The sidecar's container."""
_ROLE = "leader-sidecar.io/role"
_WITHIN = 240.0  # seconds; a bound for a slow machine, not an expectation

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, and with which token."""

    pod: str
    token: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it ran when it was looked at."""

    cluster: Cluster
    node: str
    id: str
    restarts: int
    runs: bool

    def run(self, *command: str) -> str:
        """Run a command in it, without the API server; return what it printed."""
        return self._ctr("task", "exec", "--exec-id", uuid.uuid4().hex, self.id, *command)

    def kill(self) -> None:
        """Send SIGKILL to its first process."""
        self._ctr("task", "kill", "--signal", "SIGKILL", self.id)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop all of it from running for a while."""
        self._ctr("task", "pause", self.id)
        try:
            yield
        finally:
            self._ctr("task", "resume", self.id)

    def _ctr(self, *command: str) -> str:
        return self.cluster.on_node(self.node, "ctr", "-n", "k8s.io", *command)


@dataclass
class Release:
    """A release, installed or not."""

    cluster: Cluster
    namespace: str
    name: str = "demo"
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kubectl: Kubectl = self.cluster.kubectl.within(self.namespace)

    @property
    def election(self) -> str:
        """The name of its election."""
        return f"/leader-sidecar/{self.namespace}/{self.name}"

    @property
    def image(self) -> str:
        """The image of the sidecar, which holds a Python too."""
        (image,) = {
            container["image"]
            for pod in self.pods()
            for container in pod["spec"]["initContainers"]
            if container["name"] == SIDECAR
        }
        return str(image)

    @property
    def endpoints(self) -> str:
        """Where its etcd answers."""
        scheme = "https" if "tls" in self.values else "http"
        return f"{scheme}://{self.name}-etcd.{self.namespace}.svc:2379"

    def helm(self, command: str, *arguments: str) -> str:
        """Run Helm for this release, with its values where the command takes some.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        where = (f"--kubeconfig={self.kubectl.kubeconfig}", f"--namespace={self.namespace}")
        given: tuple[str, ...] = ()
        if command in {"install", "upgrade"}:
            given = (str(CHART), "--values", str(self.cluster.values), "--values", "-")
        return run(
            (tools.helm(), command, self.name, *given, *where, *arguments),
            {**inherited_environment(), "HELM_NO_PLUGINS": "1"},
            stdin=yaml.safe_dump(self.values),
        )

    def install(self) -> None:
        """Install it and wait until it is ready."""
        self.helm("install", "--wait", "--timeout=6m")

    def upgrade(self, **values: Any) -> None:
        """Upgrade it to further values and wait until that is done."""
        self.values.update(values)
        self.helm("upgrade", "--wait", "--timeout=8m")

    def pods(self, component: str = "master") -> list[Object]:
        """Return its pods of a component that are not about to go."""
        found = self.kubectl.listed("pods", self.selector(component))
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def followers(self, leader: Leader) -> list[str]:
        """Return the pods that do not lead."""
        return [name for name in names({"items": self.pods()}) if name != leader.pod]

    def selector(self, component: str = "master") -> str:
        """Return what its pods of a component have in common."""
        return f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"

    def secrets(self) -> dict[str, dict[str, str]]:
        """Return the bytes of its Secrets, in base64."""
        found = self.kubectl.get("secrets", "-l", f"app.kubernetes.io/instance={self.name}")
        return {secret["metadata"]["name"]: secret["data"] for secret in found["items"]}

    def ask(self, pod: str, path: str) -> Any:
        """Return what a sidecar answers, or None when it does not."""
        try:
            port = self.values.get("sidecar", {}).get("statusPort", STATUS)
            return json.loads(self.kubectl.ask_pod(pod, port, path))
        except (RuntimeError, ValueError):
            return None

    def history(self) -> list[Object]:
        """Return the terms so far, as its leader tells them; the first one first."""
        told: list[Object] = self.ask(self.settled().pod, "/history")
        return told

    def changes_since(self, before: Leader) -> int:
        """Return how many terms began after one; there may be as many as the history holds."""
        return sum(term["token"] > before.token for term in self.history())

    def leader(self, but: str = "") -> Leader | None:
        """Return whom all sidecars but one take for the leader, or None if they do not agree."""
        asked = [pod["metadata"]["name"] for pod in self.pods()]
        told = [self.ask(pod, "/status") for pod in asked if pod != but]
        if not told or None in told:
            return None
        leading = [status for status in told if status["role"] == "leader"]
        named = {(status["leader"] or {}).get("id") for status in told}
        if len(leading) != 1 or named != {leading[0]["id"]}:
            return None
        return Leader(leading[0]["id"], int(leading[0]["token"]))

    def settled(self) -> Leader:
        """Wait until every pod is there and ready, one leads and all know it; return the leader."""
        selector = f"app.kubernetes.io/instance={self.name}"
        self.kubectl.run("wait", "pod", "-l", selector, "--for=create", "--timeout=240s")

        def all_is_well() -> Leader | None:
            if any(not self._is_complete(kind) for kind in ("deployments", "statefulsets")):
                return None
            leader = self.leader()
            return leader if leader is not None and self._labels_say(leader) else None

        return wait_until(all_is_well, f"{self.name} is as it shall be", _WITHIN)

    def changed_from(self, before: Leader, but: str = "") -> Leader:
        """Wait until all (but one pod) know of another term; return its leader."""

        def another() -> Leader | None:
            leader = self.leader(but)
            return leader if leader is not None and leader.token > before.token else None

        return wait_until(another, f"another term than that of {before}", _WITHIN)

    def hand_over(self, to: str) -> Leader:
        """Have a pod lead, by the command that the notes of the chart name; return the leader."""
        before = self.settled()
        if before.pod == to:
            return before
        self.command("handover", "--to", to)
        return self.settled()

    def command(self, *words: str) -> str:
        """Give the election a command, as the notes of the chart tell; return what was printed.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        kind = self.values.get("master", {}).get("kind", "Deployment").lower()
        where = ("exec", f"{kind}/{self.name}", "-c", SIDECAR, "--")
        which = ("--election", self.election, "--endpoints", self.endpoints)
        return self.kubectl.run(*where, "leader-sidecar", *words, *which)

    def lead_on_worker(self) -> Leader:
        """Have a pod lead that is on a node which a test may take away; return the leader."""
        workers = self.cluster.workers()
        before = self.settled()
        on_workers = [
            pod["metadata"]["name"] for pod in self.pods() if pod["spec"]["nodeName"] in workers
        ]
        return before if before.pod in on_workers else self.hand_over(on_workers[0])

    def node_of(self, pod: str) -> str:
        """Return the node that a pod is on."""
        return str(self.kubectl.get("pod", pod)["spec"]["nodeName"])

    def container(self, pod: str, name: str) -> "Container":
        """Return a container as it runs now."""
        found = self.kubectl.get("pod", pod)
        statuses = [
            *found["status"].get("initContainerStatuses", []),
            *found["status"]["containerStatuses"],
        ]
        (status,) = [status for status in statuses if status["name"] == name]
        id_ = status["containerID"].removeprefix("containerd://")
        runs = "running" in status["state"]
        return Container(self.cluster, found["spec"]["nodeName"], id_, status["restartCount"], runs)

    def restarted(self, pod: str, name: str, before: "Container") -> "Container":
        """Wait until a container runs again after its end."""

        def again() -> "Container | None":
            now = self.container(pod, name)
            return now if now.restarts > before.restarts and now.runs else None

        return wait_until(again, f"{name} of {pod} runs again", _WITHIN)

    def uninstall(self) -> None:
        """Uninstall it and wait until its pods are gone."""
        self.helm("uninstall", "--wait", "--timeout=4m", "--ignore-not-found")

    def _is_complete(self, kind: str) -> bool:
        found = self.kubectl.listed(kind, f"app.kubernetes.io/instance={self.name}")
        return all(
            thing["status"].get("observedGeneration", 0) >= thing["metadata"]["generation"]
            and thing["status"].get("replicas", 0) == thing["spec"]["replicas"]
            and thing["status"].get("readyReplicas", 0) == thing["spec"]["replicas"]
            for thing in found
        )

    def _labels_say(self, leader: Leader) -> bool:
        if not self.values.get("kube", {}).get("labels", True):
            return True
        roles = {
            pod["metadata"]["name"]: pod["metadata"]["labels"].get(_ROLE) for pod in self.pods()
        }
        expected = {pod: "leader" if pod == leader.pod else "follower" for pod in roles}
        return roles == expected


@contextmanager
def released(cluster: Cluster, namespace: str, *releases: Release) -> Iterator[None]:
    """Have a namespace with the restricted profile enforced, and releases in it, until the end.

    Nobody waits for that end: what ends uses other volumes than what begins.
    """
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **OURS}
    cluster.kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--timeout=240s")
    provide_volumes(cluster)
    cluster.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": labels},
        }
    )
    try:
        for release in releases:
            release.install()
        yield
    except BaseException:
        collect(cluster.kubectl, namespace, f"{namespace}-setup")
        raise
    finally:
        for release in releases:
            release.helm("uninstall", "--ignore-not-found")
        cluster.kubectl.run("delete", "namespace", namespace, "--wait=false")


def moment(told: str) -> float:
    """Return a moment that a sidecar tells, in seconds since 1970."""
    return dt.datetime.fromisoformat(told).timestamp()
