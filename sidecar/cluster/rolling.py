"""A rollout of a StatefulSet with `updateStrategy: OnDelete` in which the leader changes once.

Followers are replaced one by one; then the leader hands over to a pod of the new revision, and its
own pod is replaced last. Kubernetes alone replaces the highest ordinal first and knows no leaders:
that is one to three changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from sidecar.cluster.api import Api
from sidecar.cluster.membership import Patience
from sidecar.errors import CoordinatorError, ElectionError

_AGAIN = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the StatefulSet. `is_settled`: ready, and not on its way out."""

    name: str
    uid: str
    revision: str
    is_settled: bool


@dataclass(frozen=True, slots=True)
class State:
    """What is there.

    Attributes:
        replicas: how many pods there shall be.
        revision: that of the present pod template; "" until the controller has seen it.
        leader: the pod that leads; None: nobody, or none of these.
        candidates: the pods that stand in the election.
    """

    replicas: int
    revision: str
    pods: tuple[Pod, ...]
    leader: str | None
    candidates: frozenset[str]


@dataclass(frozen=True, slots=True)
class Done:
    """Every pod is of the new revision."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Look again after a while."""

    why: str


@dataclass(frozen=True, slots=True)
class Delete:
    """Have this pod replaced; of this uid, so that its successor is safe."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class HandOver:
    """Have the leader hand over to this pod."""

    to: str


Step = Done | Wait | Delete | HandOver


def next_step(state: State) -> Step:
    """Tell what to do next; at most one pod is away at any time."""
    if not state.revision:
        return Wait("the StatefulSet's controller has not seen the new pod template yet")
    old = [pod for pod in state.pods if pod.revision != state.revision]
    is_complete = len(state.pods) == state.replicas
    unsettled = [pod for pod in state.pods if not pod.is_settled]
    stuck = [pod for pod in unsettled if pod.revision != state.revision]
    if stuck and len(unsettled) == len(stuck) and is_complete:
        # An old pod that is not ready may never become so: it is the first to be replaced.
        return _replace(stuck, state)
    if unsettled or not is_complete:
        return Wait(f"{_names(unsettled) or 'a pod'} is not ready yet")
    if not old:
        return Done()
    followers = [pod for pod in old if pod.name != state.leader]
    if followers:
        return _replace(followers, state)
    return _hand_over(state)


def _replace(old: Sequence[Pod], state: State) -> Step:
    followers = [pod for pod in old if pod.name != state.leader] or list(old)
    if state.leader is None and len(state.pods) > 1 and state.candidates:
        return Wait("nobody leads")  # whom to keep to the last is not known
    return Delete(max(followers, key=lambda pod: pod.name))


def _hand_over(state: State) -> Step:
    """Only the leader's pod is old."""
    (leader,) = (pod for pod in state.pods if pod.name == state.leader)
    if len(state.pods) == 1:
        return Delete(leader)
    heirs = sorted(pod.name for pod in state.pods if pod.name in state.candidates - {leader.name})
    if not heirs:
        return Wait("no pod of the new revision stands in the election yet")
    return HandOver(heirs[0])


def _names(pods: Sequence[Pod]) -> str:
    return ", ".join(pod.name for pod in pods)


class Election(Protocol):
    """What the driver needs of the election."""

    async def standing(self) -> Sequence[str]:
        """Return the ids of all candidates in the order of the queue, the leader first."""

    async def hand_over(self, to: str) -> None:
        """Have the leader hand over to a candidate, and wait for it."""


class Driver:
    """Carries a rollout out."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        name: str,
        *,
        election: Election,
        patience: Patience,
        say: Callable[[str], None],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._election = election
        self._patience = patience
        self._say = say

    async def run(self) -> int:
        """Go on until every pod is of the new revision; return how many times it handed over.

        Raises:
            ApiError: the API server refused for good.
            Refused: it did not come to its end within the patience.
        """
        handovers = 0
        while True:
            match next_step(await self.look()):
                case Done():
                    return handovers
                case Wait(why):
                    await self._patience.wait(why)
                case Delete(pod):
                    self._say(f"replacing {pod.name}")
                    await self._ask(partial(self._delete, pod))
                    await asyncio.sleep(_AGAIN)  # until the deletion shows
                case HandOver(to):
                    handovers += await self._hand_over(to)

    async def look(self) -> State:
        """Return what is there."""
        path = f"/apis/apps/v1/namespaces/{self._namespace}/statefulsets/{self._name}"
        found = await self._ask(lambda: self._api.get(path))
        selector = ",".join(
            f"{key}%3D{value}" for key, value in found["spec"]["selector"]["matchLabels"].items()
        )
        pods_path = f"/api/v1/namespaces/{self._namespace}/pods?labelSelector={selector}"
        pods = (await self._ask(lambda: self._api.get(pods_path)))["items"]
        standing = await self._patience.until(self._election.standing)
        return state_of(found, pods, standing)

    async def _hand_over(self, to: str) -> bool:
        """Hand over; False: it was refused, or not heard, and all is to be looked at anew."""
        self._say(f"handing over to {to}")
        try:
            await self._election.hand_over(to)
        except (CoordinatorError, ElectionError) as exc:
            await self._patience.wait(str(exc), exc)
            return False
        return True

    def _delete(self, pod: Pod) -> None:
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod.name}"
        self._api.delete(path, {"preconditions": {"uid": pod.uid}})

    async def _ask(self, question: Callable[[], Any]) -> Any:
        return await self._patience.heard(question)


def state_of(
    stateful_set: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], standing: Sequence[str]
) -> State:
    """Return the state that these objects tell of."""
    status, metadata = stateful_set["status"], stateful_set["metadata"]
    is_seen = status.get("observedGeneration", 0) >= metadata["generation"]
    found = tuple(sorted((_pod(pod) for pod in pods), key=lambda pod: pod.name))
    names = {pod.name for pod in found}
    leader = standing[0] if standing and standing[0] in names else None
    return State(
        stateful_set["spec"]["replicas"],
        status.get("updateRevision", "") if is_seen else "",
        found,
        leader,
        frozenset(standing) & names,
    )


def _pod(pod: Mapping[str, Any]) -> Pod:
    metadata = pod["metadata"]
    conditions = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", [])}
    return Pod(
        metadata["name"],
        metadata["uid"],
        metadata["labels"].get("controller-revision-hash", ""),
        conditions.get("Ready") == "True" and "deletionTimestamp" not in metadata,
    )
