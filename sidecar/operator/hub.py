"""What the watches have shown, and whom it concerns. Lives in the main loop.

kopf tells of every object that it sees, but not of one that was deleted while its watch was away;
so what is here is compared now and then with the uids that the API server has. That also finds out
when a watch has fallen silent.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

from sidecar.election.ports import Clock
from sidecar.operator.facts import Node, Pod, stands_in
from sidecar.operator.spec import Election, is_older

log = logging.getLogger(__name__)

Key = tuple[str, str]


class Worker(Protocol):
    """Who looks after one Election."""

    election: Election

    def wake(self) -> None:
        """Something has changed that may concern it."""
        ...

    def update(self, election: Election) -> bool:
        """Take a newer version; False where only a new worker can follow it."""
        ...

    def end(self) -> None:
        """The Election is gone, or is followed by another worker from now on."""
        ...


class Hub:
    """Elections, pods and nodes.

    Args:
        hire: starts a worker for an Election.
        clock: of this machine.
        together: seconds without another cordon after which those that came are acted upon.
    """

    def __init__(
        self, hire: Callable[[Election], Worker], clock: Clock, *, together: float = 0.0
    ) -> None:
        self._hire = hire
        self._clock = clock
        self._together = together
        self._closed_at = -math.inf
        self._workers: dict[Key, Worker] = {}
        self._pods: dict[str, dict[str, Pod]] = {}
        self._unheard: frozenset[str] = frozenset()
        self.nodes: dict[str, Node] | None = None

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def workers(self) -> Collection[Worker]:
        """All workers, one for each Election."""
        return self._workers.values()

    def pods_of(self, election: Election) -> list[Pod]:
        """Return the pods that belong to an Election."""
        pods = self._pods.get(election.namespace, {})
        return [pod for pod in pods.values() if stands_in(pod, election)]

    # --- Elections ----------------------------------------------------------------------------

    def election_seen(self, election: Election) -> None:
        """An Election is there, or has changed; word that comes late says nothing."""
        worker = self._workers.get(election.key)
        if worker is not None:
            if is_older(election.version, worker.election.version):
                return
            if worker.update(election):
                return
            worker.end()
        self._workers[election.key] = self._hire(election)

    def election_gone(self, key: Key, uid: str = "") -> None:
        """An Election is gone; with a uid only that one, not another of its name."""
        worker = self._workers.get(key)
        if worker is not None and uid in {"", worker.election.uid}:
            del self._workers[key]
            worker.end()

    # --- pods -----------------------------------------------------------------------------

    def pod_seen(self, pod: Pod) -> None:
        """A pod is there, or has changed; word that comes late says nothing.

        Versions tell the order of two pods of one name, too: the first has gone before the second
        was made. Events of one object come in order, but answers to requests and events of its
        successor overtake them.
        """
        pods = self._pods.setdefault(pod.namespace, {})
        old = pods.get(pod.name)
        if old is not None and is_older(pod.marks.version, old.marks.version):
            return
        pods[pod.name] = pod
        if old is None or _without_version(old) != _without_version(pod):
            self._wake(pod, old)

    def pod_answered(self, pod: Pod) -> None:
        """An answer shows a pod; one that the watches show no more is not brought back by it."""
        if pod.name in self._pods.get(pod.namespace, {}):
            self.pod_seen(pod)

    def pod_gone(self, key: Key, uid: str = "") -> None:
        """A pod is gone; with a uid only that one, not its successor of the same name."""
        namespace, name = key
        pod = self._pods.get(namespace, {}).get(name)
        if pod is not None and uid in {"", pod.uid}:
            del self._pods[namespace][name]
            self._wake(pod, None)

    def _wake(self, pod: Pod, old: Pod | None) -> None:
        for worker in self._workers.values():
            if stands_in(pod, worker.election) or (old and stands_in(old, worker.election)):
                worker.wake()

    # --- nodes ----------------------------------------------------------------------------

    def node_seen(self, node: Node) -> None:
        """A node is there, or has changed."""
        if self.nodes is None:
            self.nodes = {}
        old = self.nodes.get(node.name)
        self.nodes[node.name] = node
        if old is not None and old.is_closed != node.is_closed:
            if node.is_closed:
                self._closed_at = self._clock.now()
            for worker in self._workers.values():
                worker.wake()

    def closing(self) -> float:
        """Return for how many seconds further cordons are waited for yet."""
        return max(0.0, self._closed_at + self._together - self._clock.now())

    def node_gone(self, name: str) -> None:
        """A node is gone."""
        if self.nodes is not None:
            self.nodes.pop(name, None)

    # --- what the watches have missed -----------------------------------------------------

    def known(self) -> frozenset[str]:
        """Return the uids of all pods and Elections that are here."""
        pods = (pod.uid for each in self._pods.values() for pod in each.values())
        return frozenset([*pods, *(worker.election.uid for worker in self._workers.values())])

    def is_deaf(self, there: Collection[str]) -> bool:
        """Whether the watches still do not tell of what was there at the last call already.

        Args:
            there: the uids of all pods and Elections that the API server has.
        """
        unheard = frozenset(there) - self.known()
        still, self._unheard = unheard & self._unheard, unheard
        return bool(still)

    def forget(self, uids: Collection[str]) -> None:
        """Forget the pods and Elections with these uids."""
        for pod in [pod for each in self._pods.values() for pod in each.values()]:
            if pod.uid in uids:
                log.info("pod is gone unheard namespace=%s pod=%s", *pod.key)
                self.pod_gone(pod.key, pod.uid)
        for key, worker in list(self._workers.items()):
            if worker.election.uid in uids:
                log.info("Election is gone unheard namespace=%s election=%s", *key)
                self.election_gone(key)


def _without_version(pod: Pod) -> tuple[Any, ...]:
    labels: Mapping[str, str] = pod.labels
    return (
        pod.uid,
        pod.marks.role,
        pod.marks.term,
        pod.marks.cost,
        labels,
        pod.election,
        pod.is_ours,
        pod.node,
        pod.addresses,
        pod.is_ready,
        pod.is_leaving,
    )
