"""The judge of the simulation, shown on a toy candidate: right code passes, classic bugs do not.

The toy polls the queue instead of watching it and never resigns; it is only as good as it must be
to be right.
"""

import asyncio
import math
from collections.abc import Callable

import pytest

from sidecar.core.lease import NEVER, Timing
from sidecar.core.store import Guard, Put, Txn
from sidecar.errors import CoordinatorError, Rejected
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.history import Acting, JudgementError
from tests.support.sim_network import FAIR, ROUGH, STORM, Fate
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

TTL = 5.0
TRY = 2.0


class Toy:
    """A candidate that is right: its deadline counts from the send, and the clock is asked."""

    def __init__(self, sim: Simulation, process: Process) -> None:
        self.sim = sim
        self.process = process
        self.etcd: FakeCoordinator = sim.coordinator(process)
        self.timing = Timing.granted(TTL, None)
        self.rng = sim.randomness(process)
        self.lease = 0
        self.key = b""
        self.token = 0
        self.deadline = NEVER
        self.is_first = False
        sim.history.attach(process, self.probe, self.known_keys)

    def is_leader(self) -> bool:
        return self.is_first and self.process.now() < self.deadline

    def probe(self) -> Acting | None:
        return Acting(self.token, self.deadline) if self.is_leader() else None

    def known_keys(self) -> list[tuple[bytes, int]]:
        return [(self.key, self.token)]

    async def run(self) -> None:
        while True:
            try:
                await self.stand()
                await self.keep_standing()
            except CoordinatorError:
                await asyncio.sleep(0.1)

    async def keep_standing(self) -> None:
        while await self.prove():  # noqa: ASYNC110 - the toy polls
            await asyncio.sleep(self.timing.renew_every)

    async def stand(self) -> None:
        self.is_first, self.deadline, self.token = False, NEVER, 0
        self.lease = self.rng.getrandbits(62)
        await self.etcd.grant(self.lease, TTL, timeout=TRY)
        self.key = self.sim.prefix + f"{self.lease:x}".encode()
        put = Txn((Guard(self.key, 0),), (Put(self.key, b"toy", self.lease),))
        reply = await self.etcd.txn(put, timeout=TRY)
        self.token = reply.header.revision

    async def prove(self) -> bool:
        sent_at = self.process.now()
        try:
            proof = await self.etcd.prove(self.lease, [self.key], timeout=TRY)
            queue = await self.etcd.read(self.sim.prefix, self.sim.prefix + b"~", timeout=TRY)
        except Rejected:
            raise
        except CoordinatorError:
            return True  # the deadline decides; try again
        if proof.ttl <= 0 or proof.read is None or not (proof.read.ranges[0] and queue.kvs):
            return False
        if self.accepts(proof.renewal_term, proof.read.header.raft_term):
            self.proven(sent_at)
            first = min(queue.kvs, key=lambda kv: kv.create_revision)
            self.is_first = first.create_revision == self.token
        return True

    def accepts(self, renewal_term: int, read_term: int) -> bool:
        return renewal_term == read_term

    def proven(self, sent_at: float) -> None:
        self.deadline = self.timing.deadline(sent_at)


class CountsFromReply(Toy):
    """Bug: the deadline counts from the moment of the answer."""

    def proven(self, sent_at: float) -> None:
        self.deadline = self.timing.deadline(self.process.now())


class TrustsFlag(Toy):
    """Bug: a timer clears a flag at the deadline, and only the flag is asked."""

    flag = False

    def is_leader(self) -> bool:
        return self.is_first and self.flag

    def probe(self) -> Acting | None:
        return Acting(self.token, math.inf) if self.is_leader() else None

    def proven(self, sent_at: float) -> None:
        super().proven(sent_at)
        self.flag = True
        asyncio.get_running_loop().call_later(self.deadline - self.process.now(), self.look)

    def look(self) -> None:
        self.flag = self.process.now() < self.deadline


class IgnoresRaftTerms(Toy):
    """Bug: a renewal that a deposed leader of the store has answered counts as one."""

    def accepts(self, renewal_term: int, read_term: int) -> bool:
        return True


def start(sim: Simulation, toy: Callable[[Simulation, Process], Toy], *names: str) -> list[Process]:
    processes = [sim.process(name) for name in names]
    for process in processes:
        process.start(lambda process: toy(sim, process).run())
        sim.run(1)  # so the first one leads
    return processes


def a_slow_answer_then_a_cut(toy: type[Toy]) -> None:
    with Simulation(seed=1) as sim:
        leader, _ = start(sim, toy, "a", "b")
        sim.run(10)
        sim.destine(leader, "prove", Fate(reply_delay=1.7))
        sim.run(2.8)
        sim.cut(leader)
        sim.run(20)
        sim.heal()
        sim.run(30)
        sim.judge(led_within=TTL + 1, is_settled=True)


def a_deposed_leader_of_etcd_answers(toy: type[Toy]) -> None:
    with Simulation(seed=3) as sim:
        leader, _ = start(sim, toy, "a", "b")
        assert sim.coordinators["a"].endpoint == sim.cluster.leader
        sim.run(10)
        first = sim.history.first()
        assert first is not None
        lease = sim.etcd.leases[int(first[0].removeprefix(sim.prefix), 16)]
        ends_at = lease.ends_at
        sim.until(lambda: lease.ends_at > ends_at, within=TTL)
        sim.run(0.1)  # a renewal has just been proven
        sim.elect(deposed_for=2.5)  # the next one is answered by the deposed leader
        sim.run(2.6)
        sim.cut(leader)
        sim.run(20)
        sim.heal()
        sim.run(30)
        sim.judge(led_within=TTL + 2, is_settled=True)


def a_freeze_longer_than_the_lease(toy: type[Toy]) -> None:
    with Simulation(seed=2) as sim:
        leader, _ = start(sim, toy, "a", "b")
        sim.run(10)
        sim.freeze(leader, 3 * TTL)
        sim.run(60)
        sim.judge(led_within=TTL + 1, is_settled=True)


@pytest.mark.parametrize(
    "schedule",
    [a_slow_answer_then_a_cut, a_deposed_leader_of_etcd_answers, a_freeze_longer_than_the_lease],
)
def test_the_right_candidate_passes(schedule: Callable[[type[Toy]], None]) -> None:
    schedule(Toy)


def test_a_deadline_counted_from_the_reply_is_found() -> None:
    with pytest.raises(JudgementError, match=r"acts .* and the key is gone") as found:
        a_slow_answer_then_a_cut(CountsFromReply)
    assert "seed 1" in str(found.value)


def test_a_flag_instead_of_the_clock_is_found() -> None:
    with pytest.raises(JudgementError, match=r"two leaders|first in the store"):
        a_freeze_longer_than_the_lease(TrustsFlag)


def test_a_renewal_answered_by_a_deposed_leader_of_etcd_is_found() -> None:
    with pytest.raises(JudgementError, match="the key is gone"):
        a_deposed_leader_of_etcd_answers(IgnoresRaftTerms)


def befall(sim: Simulation, process: Process) -> None:
    """Let one random thing happen."""
    rng = sim.world.rng
    span = rng.uniform(0, 3 * TTL)
    levers: list[Callable[[], object]] = [
        lambda: sim.freeze(process, span),
        lambda: sim.suspend(process, span),
        lambda: sim.restart(process),
        lambda: sim.cut(process, rng.choice([None, 0, 1, 2])),
        lambda: sim.elect(deposed_for=rng.uniform(0.1, 3), leaderless_for=rng.uniform(0, 2)),
        lambda: sim.restart_etcd(down_for=span),
        lambda: sim.set_weather(rng.choice([FAIR, ROUGH, STORM])),
    ]
    rng.choice(levers)()
    sim.later(span, sim.heal, process)


def rough_hours(toy: type[Toy], hours: float, seed: int) -> Simulation:
    """Let random faults befall three candidates; returns the simulation for a look."""
    with Simulation(seed=seed, weather=ROUGH) as sim:
        processes = start(sim, toy, "a", "b", "c")
        while sim.now < hours * 3600:
            sim.run(sim.world.rng.uniform(10, 60))
            befall(sim, sim.world.rng.choice(processes))
        sim.set_weather(FAIR)
        sim.run(60)
        sim.judge(is_settled=True)
    return sim


def test_the_right_candidate_survives_random_faults_and_somebody_leads_mostly() -> None:
    sim = rough_hours(Toy, 1.0, seed=3)
    assert sim.history.terms > 10
    assert sim.history.led_for() > 0.5 * sim.now


def test_the_same_seed_gives_the_same_history() -> None:
    def run(seed: int) -> tuple[int, int, list[str]]:
        sim = rough_hours(Toy, 0.2, seed)
        return sim.world.digest, sim.world.steps, list(map(str, sim.history.intervals))

    assert run(5) == run(5)
    assert run(5) != run(6)
