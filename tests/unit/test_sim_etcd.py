"""What the fake cluster and the simulated network do when they are hurt.

That they behave as etcd while all is well is for `tests/contract` to show.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from sidecar.core.store import Batch, Delete, Guard, KeyValue, Proof, Put, Txn
from sidecar.errors import LeaseNotFound, PermissionDenied, StoreFull, Unavailable
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.sim_network import Fate, Weather
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

T = TypeVar("T")

TTL = 5.0
LEASE = 0x77
KEY = b"/sim/election/77"
EXACT = Weather(least=0.0, most=0.0, late=1.0, latest=4.0)


class Bench:
    """One process with an exact clock, and its coordinator."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.process = sim.process("p", rate=1.0, offset=0.0)
        self.process.start(self.idle)
        self.etcd: FakeCoordinator = sim.coordinator(self.process)

    async def idle(self, process: Process) -> None:
        await asyncio.get_running_loop().create_future()

    def ask(self, request: Awaitable[T]) -> T:
        async def body() -> T:
            return await request

        return self.sim.complete(self.process, body())

    def stand(self) -> int:
        self.ask(self.etcd.grant(LEASE, TTL, timeout=1))
        return self.put(KEY, LEASE)

    def put(self, key: bytes, lease: int = 0) -> int:
        reply = self.ask(self.etcd.txn(Txn(then=(Put(key, b"", lease),)), timeout=1))
        return reply.header.revision

    def prove(self, timeout: float = 1.0) -> Proof:
        return self.ask(self.etcd.prove(LEASE, [KEY], timeout=timeout))

    def watching(self, start: int = 0) -> "Watching":
        return Watching(self, start)

    def has_key(self) -> bool:
        return self.sim.etcd.get(KEY) is not None


class Watching:
    """A watch that notes when each batch came, and what ended it."""

    def __init__(self, bench: Bench, start: int) -> None:
        self.seen: list[tuple[float, Batch]] = []
        self.error: Exception | None = None
        self._bench = bench
        self.task = bench.process.spawn(self._run(start))
        bench.sim.run(0.0)

    async def _run(self, start: int) -> None:
        try:
            async with self._bench.etcd.watch(b"/sim/", b"/sim0", start_revision=start) as batches:
                async for batch in batches:
                    self.seen.append((self._bench.sim.now, batch))
        except Unavailable as error:
            self.error = error

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.seen]


@pytest.fixture
def sim() -> Iterator[Simulation]:
    with Simulation(seed=1, weather=EXACT) as sim:
        yield sim


@pytest.fixture
def bench(sim: Simulation) -> Bench:
    return Bench(sim)


# Leases


def test_a_lease_ends_exactly_a_ttl_after_its_last_renewal(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.run(3.0)
    bench.prove()
    sim.until(lambda: not bench.has_key(), within=20)
    assert sim.now == 3.0 + TTL


def test_a_sweep_ends_leases_late_and_a_renewal_meanwhile_waits_and_is_refused() -> None:
    with Simulation(seed=1, weather=EXACT, sweep=0.5) as sim:
        bench = Bench(sim)
        sim.run(0.3)
        bench.stand()
        sim.run(5.1)
        assert bench.has_key()
        assert bench.prove().ttl == 0
        assert sim.now == 5.5
        assert not bench.has_key()


def test_a_new_leader_of_etcd_grants_all_leases_anew(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.run(4.0)
    term = sim.etcd.raft_term
    sim.elect(leaderless_for=2.0, extension=1.0)
    sim.until(lambda: not bench.has_key(), within=20)
    assert sim.now == 4.0 + 2.0 + TTL + 1.0
    assert sim.etcd.raft_term == term + 1


def test_a_deposed_leader_of_etcd_answers_under_its_old_term_and_renews_nothing(
    sim: Simulation, bench: Bench
) -> None:
    bench.stand()
    sim.elect(deposed_for=2.0)
    sim.run(1.5)
    proof = bench.prove()
    assert sim.now == 2.0  # the read waited until the member was back
    assert proof.read is not None
    assert (proof.ttl, proof.renewal_term) == (TTL, proof.read.header.raft_term - 1)
    sim.until(lambda: not bench.has_key(), within=20)
    assert sim.now == TTL


# The network


def test_a_lost_reply_is_unavailable_after_the_timeout_and_has_taken_effect(
    sim: Simulation, bench: Bench
) -> None:
    bench.stand()
    sim.lose_next_reply(bench.process, "txn")
    with pytest.raises(Unavailable):
        bench.ask(bench.etcd.txn(Txn(then=(Delete(KEY),)), timeout=1.25))
    assert sim.now == 1.25
    assert not bench.has_key()
    assert bench.etcd.endpoint == 1


def test_a_lost_request_has_no_effect(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.lose_next_request(bench.process, "txn")
    with pytest.raises(Unavailable):
        bench.ask(bench.etcd.txn(Txn(then=(Delete(KEY),)), timeout=1))
    assert bench.has_key()


def test_what_met_a_cut_may_take_effect_after_it(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.cut(bench.process, 0)
    with pytest.raises(Unavailable):
        bench.ask(bench.etcd.txn(Txn(then=(Delete(KEY),)), timeout=1))
    assert bench.has_key()
    assert bench.prove().ttl == TTL  # by way of the next member
    sim.heal()
    sim.run(0.0)
    assert not bench.has_key()


def test_a_duplicate_takes_effect_again_and_only_its_guards_can_help(
    sim: Simulation, bench: Bench
) -> None:
    sim.destine(bench.process, "txn", Fate(duplicate_after=2.0))
    bench.put(b"/sim/plain")
    sim.destine(bench.process, "txn", Fate(duplicate_after=2.0))
    guarded = Txn((Guard(b"/sim/guarded", 0),), (Put(b"/sim/guarded", b""),))
    bench.ask(bench.etcd.txn(guarded, timeout=1))
    revision = sim.etcd.revision
    sim.run(3.0)
    assert sim.etcd.revision == revision + 1


def test_a_late_put_on_a_revoked_lease_fails(sim: Simulation, bench: Bench) -> None:
    bench.ask(bench.etcd.grant(LEASE, TTL, timeout=1))
    sim.destine(bench.process, "txn", Fate(request_delay=3.0))
    with pytest.raises(Unavailable):
        bench.put(KEY, LEASE)
    bench.ask(bench.etcd.revoke(LEASE, timeout=1))
    sim.run(5.0)
    assert not bench.has_key()
    with pytest.raises(LeaseNotFound):
        bench.put(KEY, LEASE)


def test_requests_overtake_each_other(sim: Simulation, bench: Bench) -> None:
    sim.destine(bench.process, "txn", Fate(request_delay=0.5))
    slow = bench.process.spawn(bench.etcd.txn(Txn(then=(Put(b"/sim/a", b""),)), timeout=1))
    fast = bench.put(b"/sim/b")
    sim.until(slow.done, within=1)
    assert slow.result().header.revision == fast + 1


def test_a_fate_can_be_an_error_and_can_choose_its_request(sim: Simulation, bench: Bench) -> None:
    def is_delete(txn: Txn) -> bool:
        return any(isinstance(op, Delete) for op in txn.then)

    sim.destine(bench.process, "txn", Fate(matching=is_delete, error=PermissionDenied("no")))
    bench.stand()
    with pytest.raises(PermissionDenied):
        bench.ask(bench.etcd.txn(Txn(then=(Delete(KEY),)), timeout=1))
    assert bench.has_key()


def test_an_unanswered_request_takes_all_of_its_channel_with_it(
    sim: Simulation, bench: Bench
) -> None:
    watching = bench.watching()
    sim.destine(bench.process, "read", Fate(reply_delay=5.0))
    slow = bench.process.spawn(bench.etcd.read(b"a", b"b", timeout=9))
    sim.lose_next_reply(bench.process, "txn")
    with pytest.raises(Unavailable):
        bench.put(KEY)
    assert isinstance(slow.exception(), Unavailable)
    assert isinstance(watching.error, Unavailable)
    assert bench.etcd.channel == 1


# Watches


def test_a_silent_watch_hears_nothing_and_a_new_one_everything(
    sim: Simulation, bench: Bench
) -> None:
    silent = bench.watching()
    sim.silence_watch(bench.process)
    revision = bench.put(KEY)
    sim.run(100.0)
    assert (silent.seen, silent.error) == ([], None)
    assert bench.watching(revision).times == [100.0]


def test_a_watch_behind_a_cut_hears_everything_after_it_in_order(
    sim: Simulation, bench: Bench
) -> None:
    watching = bench.watching()
    sim.cut(bench.process)
    for _ in range(3):
        sim.etcd.txn(Txn(then=(Put(KEY, b""),)))
        sim.run(1.0)
    assert watching.seen == []
    sim.heal()
    (batch,) = (batch for _, batch in watching.seen)
    assert [event.kv.mod_revision for event in batch.events] == [2, 3, 4]


def test_a_member_that_lags_tells_its_watches_late_and_its_now_is_old(
    sim: Simulation, bench: Bench
) -> None:
    sim.cluster.members[0].lag = 2.0
    bench.put(b"/sim/a")
    sim.run(1.0)
    late = bench.watching()
    bench.put(b"/sim/b")
    sim.run(5.0)
    assert late.times == [2.0, 3.0]


def test_watches_end_at_a_member_without_a_leader(sim: Simulation, bench: Bench) -> None:
    watching = bench.watching()
    sim.cluster.cut_off(0)
    sim.run(2.9)
    assert watching.error is None
    sim.run(0.2)
    assert isinstance(watching.error, Unavailable)


# The store


def test_a_restart_keeps_data_breaks_watches_and_refuses_while_it_lasts(
    sim: Simulation, bench: Bench
) -> None:
    bench.stand()
    watching = bench.watching()
    sim.restart_etcd(down_for=3.0)
    with pytest.raises(Unavailable):
        bench.prove()
    assert sim.now == 0.0
    assert isinstance(watching.error, Unavailable)
    sim.run(3.0)
    assert bench.has_key()
    assert bench.prove().ttl == TTL


def test_a_paused_member_holds_what_it_gets(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.cluster.pause(0)
    reading = bench.process.spawn(bench.etcd.read(b"a", b"b", timeout=9))
    sim.run(2.0)
    assert not reading.done()
    sim.cluster.resume(0)
    sim.run(0.0)
    assert reading.done()


def test_a_restored_store_goes_back_and_its_leases_live_again(
    sim: Simulation, bench: Bench
) -> None:
    token = bench.stand()
    bench.put(b"/sim/later")
    bench.ask(bench.etcd.revoke(LEASE, timeout=1))
    cluster = sim.etcd.cluster_id
    sim.restore(token, is_new_cluster=True)
    assert sim.etcd.revision == token
    assert sim.etcd.get(KEY) == KeyValue(KEY, b"", token, token, LEASE)
    assert sim.etcd.get(b"/sim/later") is None
    assert sim.etcd.header().cluster_id != cluster
    waits = bench.watching(token + 2)
    bench.put(b"/sim/a")
    bench.put(b"/sim/b")
    assert [batch.revision for _, batch in waits.seen] == [token + 2]
    sim.until(lambda: not bench.has_key(), within=20)
    assert sim.now == TTL


@pytest.mark.parametrize("write", ["grant", "put", "a put in the other branch"])
def test_a_full_store_refuses_what_needs_space(sim: Simulation, bench: Bench, write: str) -> None:
    requests: dict[str, Callable[[], Awaitable[object]]] = {
        "grant": lambda: bench.etcd.grant(1, TTL, timeout=1),
        "put": lambda: bench.etcd.txn(Txn(then=(Put(KEY, b""),)), timeout=1),
        "a put in the other branch": lambda: bench.etcd.txn(
            Txn(then=(Delete(KEY),), otherwise=(Put(KEY, b""),)), timeout=1
        ),
    }
    sim.fill()
    with pytest.raises(StoreFull):
        bench.ask(requests[write]())
    sim.empty()
    bench.ask(requests[write]())


def test_a_full_store_renews_reads_and_deletes(sim: Simulation, bench: Bench) -> None:
    bench.stand()
    sim.fill()
    assert bench.prove().ttl == TTL
    bench.ask(bench.etcd.txn(Txn(then=(Delete(KEY),)), timeout=1))
    assert not bench.has_key()
