"""An observer follows an election through every way in which a watch can fail."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sidecar.core.state import Leader
from sidecar.core.store import Batch, Put, Txn
from sidecar.election import Observer
from sidecar.errors import PermissionDenied, Unavailable
from tests.election.support import (
    LAYOUT,
    SOON,
    TRIP,
    WAY,
    Counts,
    Host,
    Meddled,
    Steady,
    exactly,
    put_waiters,
    remove,
)
from tests.support.sim_network import Fate
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

GRACE = 0.25
PROBE_EVERY = 2.0
REREAD_EVERY = 50.0 * 1.2


class Watcher:
    """A process with an open observer, and all that it yielded."""

    def __init__(self, sim: Simulation, etcd: type[Meddled] = Meddled) -> None:
        self.sim = sim
        self.process = sim.process("watcher", rate=1.0)
        self.etcd_type = etcd
        self.meter = Counts()
        self.seen: list[tuple[float, str]] = []
        self.process.start(self._live)

    async def _live(self, process: Process) -> None:
        self.etcd = self.etcd_type(process, self.sim.cluster, self.sim.network)
        self.sim.coordinators[process.name] = self.etcd
        self.end = asyncio.Event()
        self.observer = Observer(
            self.etcd, LAYOUT.name, clock=process, meter=self.meter, rng=Steady("watcher")
        )
        async with self.observer, asyncio.TaskGroup() as group:
            reading = group.create_task(self._read())
            await self.end.wait()
            reading.cancel()

    async def _read(self) -> None:
        async for leader in self.observer.observe():
            self.seen.append((self.sim.now, leader.id if leader else ""))

    @property
    def ids(self) -> list[str]:
        return [id_ for _, id_ in self.seen]

    def close(self) -> None:
        self.process.call(self.end.set)
        assert self.process.main is not None
        self.sim.until(self.process.main.done, within=SOON)
        assert asyncio.all_tasks(self.process.loop) == set()


def is_whole(key: bytes) -> bool:
    return key == LAYOUT.start


class Counted:
    """When a watcher reads from here on: the whole range, or only the key that it probes with."""

    def __init__(self, sim: Simulation, watcher: Watcher) -> None:
        self.whole: list[float] = []
        self.probes: list[float] = []
        asked = watcher.etcd.read

        async def read(key: bytes, end: bytes, **how: object) -> object:
            (self.whole if is_whole(key) else self.probes).append(sim.now)
            return await asked(key, end, **how)  # type: ignore[arg-type]

        watcher.etcd.read = read  # type: ignore[method-assign, assignment]


def test_the_first_word_comes_with_the_first_read(sim: Simulation) -> None:
    put_waiters(sim, 2)
    watcher = Watcher(sim)
    sim.run(SOON)
    assert watcher.seen == [(exactly(2 * TRIP), "w1")]  # the watch is opened, the range read
    key = LAYOUT.candidate(0x1001).decode()
    assert watcher.observer.leader.value == Leader("w1", "", 2, key)
    assert (watcher.observer.transitions, watcher.meter.changes) == (1, 1)
    watcher.close()


def test_an_empty_election_yields_nobody_and_then_each_change(sim: Simulation) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    w1, w2 = put_waiters(sim, 2)
    sim.run(SOON)
    remove(sim, w1)
    sim.run(SOON)
    remove(sim, w2)
    sim.run(SOON)
    assert watcher.ids == ["", "w1", "w2", ""]
    assert watcher.seen[1][0] == exactly(SOON + WAY)
    assert watcher.meter.changes == 3
    watcher.close()


def test_a_new_value_of_the_leader_is_told_and_is_no_transition(sim: Simulation) -> None:
    (w1,) = put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.etcd.txn(Txn(then=(Put(w1, b"another name", 0x1001),)))
    sim.run(SOON)
    assert watcher.ids == ["w1", "another name"]
    assert watcher.observer.transitions == 1


def test_in_a_pause_nobody_leads(sim: Simulation) -> None:
    put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)))
    sim.run(SOON)
    remove(sim, LAYOUT.pause)
    sim.run(SOON)
    assert watcher.ids == ["w1", "", "w1"]


def test_who_listens_hears_every_change_until_it_does_not_want_to(sim: Simulation) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    heard: list[int] = []
    stop = watcher.observer.listen(lambda: heard.append(len(watcher.observer.replica)))
    put_waiters(sim, 1)
    sim.run(SOON)
    put_waiters(sim, 1, first=2)
    sim.run(SOON)
    stop()
    put_waiters(sim, 1, first=3)
    sim.run(SOON)
    assert heard == [1, 2]


def test_a_broken_watch_is_opened_again_and_misses_nothing(sim: Simulation) -> None:
    (w1,) = put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    broken_at = sim.now
    sim.break_watch(watcher.process)
    remove(sim, w1)
    put_waiters(sim, 1, first=2)
    sim.run(SOON)
    assert watcher.ids == ["w1", "w2"]
    assert watcher.seen[-1][0] == exactly(broken_at + 0.05 + 2 * TRIP)
    assert watcher.observer.trouble == ""


def test_an_outage_is_survived_however_long_it_is(sim: Simulation) -> None:
    (w1,) = put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.restart_etcd(down_for=60.0)
    sim.run(10.0)
    assert watcher.observer.trouble != ""
    assert watcher.ids == ["w1"]
    sim.run(60.0)
    remove(sim, w1)
    sim.run(SOON)
    assert watcher.ids == ["w1", ""]


def test_a_compacted_store_is_read_anew(sim: Simulation) -> None:
    put_waiters(sim, 1)
    sim.compact()
    watcher = Watcher(sim)
    sim.run(SOON)
    put_waiters(sim, 3, first=2)
    sim.compact()
    sim.break_watch(watcher.process)
    sim.run(SOON)
    assert len(watcher.observer.replica) == 4


def test_events_that_come_before_the_first_read_is_answered_are_not_undone_by_it(
    sim: Simulation,
) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    counted = Counted(sim, watcher)
    sim.destine(watcher.process, "read", Fate(matching=is_whole, reply_delay=0.5))
    sim.until(lambda: counted.whole != [], within=REREAD_EVERY)
    sim.run(2 * WAY)
    put_waiters(sim, 2)
    sim.run(0.1)
    assert len(watcher.observer.replica) == 2
    sim.run(SOON)  # and its answer is older than that
    assert len(watcher.observer.replica) == 2
    assert watcher.ids == ["", "w1"]


def test_everything_is_read_again_now_and_then(sim: Simulation) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    counted = Counted(sim, watcher)
    sim.run(3 * REREAD_EVERY)
    first = 2 * TRIP + REREAD_EVERY
    assert counted.whole == [exactly(first + n * (REREAD_EVERY + TRIP)) for n in range(3)]


def test_a_reading_without_an_answer_is_left_out(sim: Simulation) -> None:
    put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    no = PermissionDenied("not now")
    sim.destine(watcher.process, "read", Fate(matching=is_whole, error=no))
    counted = Counted(sim, watcher)
    sim.until(lambda: counted.whole != [], within=REREAD_EVERY)
    sim.run(2 * TRIP)
    assert watcher.observer.trouble == "read: not now"
    assert watcher.ids == ["w1"]
    sim.run(2 * PROBE_EVERY)
    assert watcher.observer.trouble == ""


def test_a_refused_probe_is_told_and_ends_nothing(sim: Simulation) -> None:
    put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.destine(watcher.process, "read", Fate(error=PermissionDenied("not now")))
    sim.run(PROBE_EVERY)
    assert watcher.observer.trouble == "probe: not now"
    put_waiters(sim, 1, first=2)
    sim.run(PROBE_EVERY)
    assert watcher.observer.trouble == ""
    assert len(watcher.observer.replica) == 2


def test_a_dead_endpoint_is_found_although_nobody_renews_there(sim: Simulation) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.cut(watcher.process, 0)
    put_waiters(sim, 1)
    sim.run(2 * PROBE_EVERY + SOON)
    assert watcher.etcd.endpoint == 1
    assert watcher.ids == ["", "w1"]
    sim.heal()


def test_nobody_is_asked_while_the_store_answers_anyway(sim: Simulation) -> None:
    watcher = Watcher(sim)
    sim.run(SOON)
    counted = Counted(sim, watcher)
    for _ in range(8):
        watcher.process.call(watcher.observer._contact.answered)
        sim.run(SOON)
    assert counted.probes == []
    sim.run(2 * PROBE_EVERY)
    assert len(counted.probes) == 2


def test_a_silent_watch_is_found_by_what_a_read_shows(sim: Simulation) -> None:
    w1, _ = put_waiters(sim, 2)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.silence_watch(watcher.process)
    remove(sim, w1)
    asked_at = sim.now
    watcher.process.call(watcher.observer.compare, {w1: None}, sim.etcd.revision)
    sim.run(SOON)
    assert watcher.ids == ["w1", "w2"]
    assert watcher.seen[-1][0] == exactly(asked_at + GRACE + TRIP)


def test_a_doubt_that_an_event_clears_up_costs_no_read(sim: Simulation) -> None:
    w1, _ = put_waiters(sim, 2)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.cluster.members[0].lag = 0.1
    remove(sim, w1)
    counted = Counted(sim, watcher)
    watcher.process.call(watcher.observer.compare, {w1: None}, sim.etcd.revision)
    sim.run(0.9)
    assert counted.whole == []
    assert watcher.ids == ["w1", "w2"]


def test_an_old_read_raises_no_doubt(sim: Simulation) -> None:
    w1, _ = put_waiters(sim, 2)
    watcher = Watcher(sim)
    sim.run(SOON)
    counted = Counted(sim, watcher)
    watcher.process.call(watcher.observer.compare, {w1: None}, sim.etcd.revision)
    sim.run(0.9)
    assert counted.whole == []


@pytest.mark.parametrize("is_new_cluster", [False, True])
def test_a_restored_store_is_taken_as_it_is(sim: Simulation, is_new_cluster: bool) -> None:
    (w1,) = put_waiters(sim, 1)
    early = sim.etcd.revision
    watcher = Watcher(sim)
    sim.run(SOON)
    remove(sim, w1)
    put_waiters(sim, 5, first=2)
    sim.run(SOON)
    sim.restore(early, is_new_cluster=is_new_cluster)
    sim.run(SOON)
    assert watcher.ids == ["w1", "w2", "w1"]
    assert watcher.observer.replica.revision == early
    assert watcher.observer.replica.cluster_id == sim.etcd.cluster_id
    put_waiters(sim, 1, first=20)
    sim.run(SOON)
    assert len(watcher.observer.replica) == 2  # events of the new time count


def test_a_refused_watch_says_which_range_the_role_needs(
    sim: Simulation, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(sim)
    sim.destine(host.process, "watch", Fate(error=PermissionDenied("permission denied")))

    async def case() -> None:
        async with Observer(host.etcd, LAYOUT.name, clock=host.process) as observer:
            await asyncio.sleep(2 * WAY + 0.001)
            assert LAYOUT.grant_command in observer.trouble
            await observer.synced()
            assert observer.trouble == ""

    host.do(case())
    assert "store answers again" in caplog.text or LAYOUT.grant_command in caplog.text


def test_a_watch_that_is_never_confirmed_is_opened_elsewhere(sim: Simulation) -> None:
    put_waiters(sim, 1)
    watcher = Watcher(sim)
    sim.run(SOON)
    sim.lose_next_request(watcher.process, "watch")
    sim.break_watch(watcher.process)
    sim.run(5.0 + SOON)
    assert watcher.ids == ["w1"]
    put_waiters(sim, 1, first=2)
    sim.run(SOON)
    assert len(watcher.observer.replica) == 2


class Quiet(Meddled):
    """A store that breaks the contract: its first watch ends without an error."""

    ended = False

    def watch(self, key: bytes, end: bytes, *, start_revision: int) -> object:  # type: ignore[override]
        whole = super().watch(key, end, start_revision=start_revision)
        if self.ended:
            return whole
        self.ended = True
        return self._ending(whole)

    @asynccontextmanager
    async def _ending(self, whole: object) -> AsyncIterator[AsyncIterator[Batch]]:
        async with whole:  # type: ignore[attr-defined]
            yield Ending()


class Ending:
    """Batches that never come, and then are over."""

    def __aiter__(self) -> "Ending":
        return self

    async def __anext__(self) -> Batch:
        await asyncio.sleep(SOON)
        raise StopAsyncIteration


def test_a_watch_that_ends_without_a_word_is_lost_as_any_other(sim: Simulation) -> None:
    watcher = Watcher(sim, Quiet)
    sim.run(0.5)
    put_waiters(sim, 1)
    sim.run(2 * SOON)
    assert watcher.ids == ["", "w1"]


def test_an_observer_has_the_clock_of_the_machine_by_default(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        async with Observer(host.etcd, LAYOUT.name) as observer:
            await observer.synced()
            assert observer.leader.value is None

    host.do(case())


def test_what_the_block_raises_passes_as_it_is(sim: Simulation) -> None:
    host = Host(sim)

    async def case() -> None:
        with pytest.raises(Unavailable, match="mine"):
            async with Observer(host.etcd, LAYOUT.name, clock=host.process):
                raise Unavailable("mine")

    host.do(case())
