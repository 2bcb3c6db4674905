"""Feeds, pauses, tasks in the background, and the word on how the store does."""

import asyncio
import logging

import pytest

from sidecar.core.lease import NEVER
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.contact import Contact
from sidecar.election.feed import Feed
from sidecar.election.ports import NoKeeper, NoMeter, Standing, SystemClock
from sidecar.errors import Rejected, Unavailable
from tests.election.support import Host, Steady, exactly
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


# Feeds


def test_a_follower_gets_the_present_value_and_then_the_latest(sim: Simulation) -> None:
    feed = Feed(0)
    got: list[int] = []

    async def follow() -> None:
        async for value in feed.follow():
            got.append(value)  # noqa: PERF401 - it never ends

    async def case() -> None:
        async with asyncio.TaskGroup() as group:
            following = group.create_task(follow())
            await asyncio.sleep(1)
            feed.publish(1)
            feed.publish(2)  # the one before is never seen
            await asyncio.sleep(1)
            feed.publish(2)  # no change
            await asyncio.sleep(1)
            following.cancel()

    Host(sim).do(case())
    assert got == [0, 2]
    assert (feed.value, feed.version) == (2, 2)


def test_a_listener_hears_each_change_at_once() -> None:
    feed = Feed("a")
    heard: list[str] = []
    feed.listen(lambda: heard.append(feed.value))
    for value in ("b", "b", "c"):
        feed.publish(value)
    assert heard == ["b", "c"]


# Pauses


def test_pauses_double_from_fifty_milliseconds_to_a_second(sim: Simulation) -> None:
    async def case() -> list[float]:
        backoff = Backoff(Steady())
        pauses = []
        for number in range(8):
            if number == 7:
                backoff.reset()
            before = sim.now
            await backoff.wait()
            pauses.append(sim.now - before)
        return pauses

    pauses = Host(sim).do(case())
    assert pauses == [exactly(s) for s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.05)]


# Tasks


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def test_tasks_end_with_the_block(sim: Simulation) -> None:
    async def case() -> None:
        async with Background() as tasks:
            tasks.start(forever(), name="one")
            tasks.start(forever(), name="two")
            await asyncio.sleep(1)
        assert asyncio.all_tasks() == {asyncio.current_task(), *host_tasks}

    host = Host(sim)
    host_tasks = asyncio.all_tasks(host.process.loop)
    host.do(case())


def test_a_task_that_fails_ends_the_block_as_a_group(sim: Simulation) -> None:
    async def fails() -> None:
        raise ValueError("planted")

    async def block() -> None:
        async with Background() as tasks:
            tasks.start(fails(), name="fails")
            tasks.start(forever(), name="other")
            await forever()

    async def case() -> None:
        with pytest.raises(ExceptionGroup, match="TaskGroup") as failed:
            await block()
        assert failed.value.subgroup(ValueError) is not None

    Host(sim).do(case())


def test_tasks_may_be_cancelled_before_the_end(sim: Simulation) -> None:
    async def case() -> None:
        async with Background() as tasks:
            tasks.start(forever(), name="one")
            await asyncio.sleep(1)
            tasks.cancel()
            await asyncio.sleep(1)
            assert len(asyncio.all_tasks()) == 2

    Host(sim).do(case())


# Contact


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    process = sim.process("a", rate=1.0)
    contact = Contact(process, NoMeter())
    assert contact.answered_at == NEVER
    with caplog.at_level(logging.INFO):
        for error in (Unavailable("one"), Unavailable("two")):
            contact.failed("renewal", error)
        assert contact.trouble == "renewal: two"
        contact.answered()
        contact.answered()
        contact.failed("grant", Rejected("no"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "store does not answer call=renewal error=one"),
        ("INFO", "store answers again"),
        ("WARNING", "store refuses call=grant error=no"),
    ]


def test_how_long_the_store_was_silent_counts_only_answers(sim: Simulation) -> None:
    process = sim.process("a", rate=1.0)
    contact = Contact(process, NoMeter())
    contact.answered()
    sim.run(2)
    contact.failed("read", Unavailable("x"))
    sim.run(1)
    assert contact.silent_for() == exactly(3.0)
    assert contact.untried_for() == exactly(1.0)


# Defaults


def test_the_clocks_of_the_machine_move_on() -> None:
    clock = SystemClock()
    earlier = clock.now()
    assert 0 < earlier <= clock.now()
    assert clock.wall() > 1_700_000_000


def test_who_tells_nobody_has_nothing_to_settle_nor_to_forget(sim: Simulation) -> None:
    keeper = NoKeeper()

    async def case() -> None:
        keeper.remember(Standing(1, "/e/1", 1, 5.0, 1))
        keeper.saw(1, 1)
        await keeper.settle()
        assert await keeper.forget()

    Host(sim).do(case())


def test_who_counts_nothing_takes_everything() -> None:
    meter = NoMeter()
    meter.renewed("proven", 0.1)
    meter.store_answered()
    meter.leader_changed()
    meter.stepped_down("resigned")
    meter.elected(0.1)
