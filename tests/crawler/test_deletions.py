"""A deleted resource stays deleted, whatever arrives late or again, in virtual time."""

import asyncio
from typing import Any

import pytest
from crawler import crawler_pb2 as pb
from crawler import keys
from crawler.problems import Problem
from crawler.records import Deletion

from sidecar.core.store import Put, Txn
from tests.crawler.sim_leader import Stage, soon, spec, stage
from tests.support.sim_network import Fate

pytestmark = pytest.mark.sim

NEWS = pb.DeleteResourceRequest(name="news")
SWEPT_WITHIN = 1300.0
"""Virtual seconds: a mark is first seen within ten minutes, and removed ten minutes later."""


def is_add(txn: Any) -> bool:
    return isinstance(txn, Txn) and any(
        isinstance(op, Put) and op.key == keys.resource("news") for op in txn.then
    )


def marks(on: Stage) -> list[bytes]:
    start = keys.DELETED.encode()
    return [kv.key for kv in on.etcd.read(start, keys.prefix_end(start)).kvs]


@pytest.mark.parametrize("late", [1.0, 60.0, 500.0])
def test_an_add_that_arrives_again_does_not_bring_a_deleted_resource_back(late: float) -> None:
    """A member froze with it, another one took its second try, and the frozen one thaws."""
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                on.sim.destine(on.process, "txn", Fate(matching=is_add, duplicate_after=late))
                await leader.add(spec(), soon())
                await leader.delete(NEWS, soon())
                await asyncio.sleep(late + 1)
                assert not on.stored("news")

        on.run(body)


def test_a_repeated_add_after_a_delete_by_the_next_leader_adds_nothing() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                on.sim.lose_next_reply(on.process, "txn")
                adding = leader.add(spec(), soon(1))
                with pytest.raises(Problem, match="may have taken effect"):
                    await adding
            async with on.leading() as (leader, _):
                await leader.delete(NEWS, soon())
                assert await leader.add(spec(), soon()) == pb.NodeSpec()
                assert not on.stored("news")

        on.run(body)


def test_another_request_adds_what_was_deleted() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                for number in range(3):
                    await leader.add(spec(request_id=f"r-{number}"), soon())
                    assert on.stored("news")
                    await leader.delete(NEWS, soon())
                    assert not on.stored("news")

        on.run(body)


def test_a_repeated_delete_leaves_what_was_added_in_between() -> None:
    """The answer to the first try was lost; then somebody else's add came before the second."""
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                await leader.add(spec(), soon())
                on.sim.lose_next_reply(on.process, "txn")
                async with asyncio.TaskGroup() as group:
                    deleting = group.create_task(leader.delete(NEWS, soon()))
                    await asyncio.sleep(1)  # it is done, and not heard for another second
                    await leader.add(spec(request_id="r-2"), soon())
                    assert await deleting == pb.DeleteResourceReply()
                assert on.stored("news")

        on.run(body)


def test_a_full_store_still_takes_a_delete() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                await leader.add(spec(), soon())
                on.etcd.is_full = True
                await leader.delete(NEWS, soon())
                assert not on.stored("news")
                assert marks(on) == []

        on.run(body)


def test_a_delete_is_acknowledged_that_landed_unheard_before_the_store_was_full() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                await leader.add(spec(), soon())
                on.sim.lose_next_reply(on.process, "txn")
                async with asyncio.TaskGroup() as group:
                    deleting = group.create_task(leader.delete(NEWS, soon()))
                    await asyncio.sleep(1)
                    on.etcd.is_full = True
                    assert await deleting == pb.DeleteResourceReply()

        on.run(body)


def test_marks_are_swept_when_they_are_old_and_not_before() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                await asyncio.sleep(300)  # halfway between two looks
                for number in range(120):
                    name = f"r{number}"
                    await leader.add(spec(name), soon())
                    await leader.delete(pb.DeleteResourceRequest(name=name), soon())
                await asyncio.sleep(590)
                assert len(marks(on)) == 120
                await asyncio.sleep(SWEPT_WITHIN - 590)
                assert marks(on) == []
                assert not on.stored("r1")

        on.run(body)


def test_a_mark_is_read_back_as_it_was_written() -> None:
    mark = Deletion("news", "r-1", 7)
    assert Deletion.decode(mark.encode()) == mark
    assert Deletion.decode(b"{}") is Deletion.decode(b"junk") is None
