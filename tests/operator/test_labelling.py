"""Labels are put right one after the other, each by what etcd says at that moment."""

from dataclasses import replace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from sidecar.errors import ApiRefused
from sidecar.operator.facts import Pod
from sidecar.operator.labelling import Labels
from sidecar.operator.metrics import OperatorMetrics
from sidecar.operator.spec import Election
from sidecar.operator.story import Happening, event
from sidecar.operator.tools import Teller
from sidecar.operator.view import View
from tests.operator.test_hub import Clock
from tests.operator.things import Document, election, pod, pod_document, queue, tools_for

OURS = {"leader-sidecar.io/labelled-by": "operator"}


class World:
    """Three pods that nobody has labelled yet, and what etcd says of them."""

    def __init__(self) -> None:
        self.view = queue("m-0", "m-1", "m-2")
        self.after: View | None = None
        self.refused: dict[str, int] = {}
        self.patched: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self.events: list[str] = []
        self.clock = Clock()
        self.lost: list[tuple[tuple[str, str], str]] = []
        tools = replace(
            tools_for(self, self.clock),
            meter=OperatorMetrics(CollectorRegistry(), lambda: True),
            lose_pod=lambda key, uid: self.lost.append((key, uid)),
        )
        self._labels = Labels(tools, cast("Teller", self))

    async def patch(self, path: str, body: Document) -> Document:
        """As the API server does; etcd says something else from then on, where that is set."""
        name = path.rpartition("/")[2]
        self.asked.append(name)
        if name in self.refused:
            raise ApiRefused(self.refused[name], "no")
        role = body["metadata"]["labels"]["leader-sidecar.io/role"]
        self.patched.append((name, role))
        self.view = self.after or self.view
        return pod_document(name, role=role, annotations=OURS)

    def tell(self, of: Election, happening: Happening) -> None:
        """Note the name of the Event."""
        self.events.append(event(happening, of, 0.0, "op-0")["metadata"]["name"])

    async def find(self, path: str) -> Document:
        return pod_document(path.rpartition("/")[2], annotations=OURS)

    async def put_right(self, *names: str) -> tuple[list[str], float | None]:
        return await self.put(*(pod(name, annotations=OURS) for name in names))

    async def put(self, *pods: Pod) -> tuple[list[str], float | None]:
        return await self._labels.put_right(election(), lambda: self.view, pods)


@pytest.fixture
def world() -> World:
    return World()


async def test_whom_etcd_calls_the_leader_no_more_is_not_labelled_so(world: World) -> None:
    world.after = queue("m-1", "m-2", first=11)
    await world.put_right("m-0", "m-1", "m-2")
    assert len(world.patched) == 1
    assert ("m-0", "leader") not in world.patched
    await world.put_right("m-1", "m-2")
    assert world.patched[-1] == ("m-1", "leader")


@pytest.mark.parametrize("status", [403, 422])
async def test_a_pod_that_may_not_be_patched_stands_in_no_others_way(
    world: World, status: int
) -> None:
    world.refused = {"m-1": status}
    names: Any = ("m-0", "m-1", "m-2")
    told, later = await world.put_right(*names)
    assert sorted(world.patched) == [("m-0", "leader"), ("m-2", "follower")]
    assert told == []
    assert later is not None
    assert 0 < later <= 0.2
    world.asked.clear()
    await world.put_right("m-1")
    assert world.asked == []  # not again at once
    world.clock.seconds += 1.0
    told, later = await world.put_right("m-1")
    assert (told, world.asked) == (["m-1"], ["m-1"])
    assert later is not None
    del world.refused["m-1"]
    world.clock.seconds += later
    assert await world.put_right("m-1") == ([], None)
    assert world.patched[-1] == ("m-1", "follower")


async def test_a_pod_that_is_gone_is_lost_by_its_uid_and_not_its_successor(world: World) -> None:
    world.refused = {"m-0": 404}
    await world.put_right("m-0")
    assert world.lost == [(("shop", "m-0"), "uid-of-m-0")]


async def test_each_repair_is_told_also_while_etcd_is_at_rest(world: World) -> None:
    for version in ("51", "52"):
        falsified = pod("m-1", role="nonsense", resourceVersion=version)
        for _ in range(2):  # its sidecar may do it first
            await world.put(falsified)
            world.clock.seconds += 1.0
    assert set(world.events) == {"m-1.label-repaired.51", "m-1.label-repaired.52"}
