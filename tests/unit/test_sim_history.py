"""The judge looks at each promise: one leader, growing tokens, true outputs, no gap, no zombie."""

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.core.store import Delete, Put, Txn
from tests.support.history import Acting, JudgementError
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

LEASE_TTL = 5.0


class Puppet:
    """A candidate that acts when it is told to; its clock shows true time."""

    def __init__(self, sim: Simulation, name: str) -> None:
        self.sim = sim
        self.key = sim.prefix + name.encode()
        self.acting: Acting | None = None
        self.known: set[tuple[bytes, int]] = set()
        self.process = sim.process(name, rate=1.0, offset=0.0)
        self.process.start(self.run)
        sim.history.attach(self.process, self.probe, lambda: self.known)

    async def run(self, process: Process) -> None:
        await asyncio.get_running_loop().create_future()

    def probe(self) -> Acting | None:
        acting = self.acting
        return acting if acting is not None and self.process.now() < acting.deadline else None

    def stand(self) -> int:
        token = self.sim.etcd.txn(Txn(then=(Put(self.key, b""),))).header.revision
        self.known.add((self.key, token))
        return token

    def leave(self) -> None:
        self.sim.etcd.txn(Txn(then=(Delete(self.key),)))

    def act(self, token: int, seconds: float) -> None:
        self.acting = Acting(token, self.process.now() + seconds)
        self.process.call(lambda: None)

    def rest(self) -> None:
        self.acting = None
        self.process.call(lambda: None)


@pytest.fixture
def sim() -> Iterator[Simulation]:
    with Simulation(seed=1) as sim:
        yield sim


@pytest.fixture
def a(sim: Simulation) -> Puppet:
    return Puppet(sim, "a")


@pytest.fixture
def b(sim: Simulation) -> Puppet:
    return Puppet(sim, "b")


def broken(sim: Simulation, promise: str) -> None:
    with pytest.raises(JudgementError, match=promise):
        sim.judge()


def test_one_after_the_other_is_allowed(sim: Simulation, a: Puppet, b: Puppet) -> None:
    a.act(a.stand(), 10.0)
    second = b.stand()
    sim.run(10.0)
    a.leave()
    b.act(second, 10.0)
    sim.run(1.0)
    sim.judge(led_within=0.0)
    assert sim.history.led_for() == 11.0
    assert sim.history.terms == 2


def test_an_overlap_of_a_microsecond_is_found_though_nobody_steps_in_it(
    sim: Simulation, a: Puppet, b: Puppet
) -> None:
    a.act(a.stand(), 10.000001)
    token = b.stand()
    sim.run(10.0)
    b.act(token, 1.0)
    broken(sim, "two leaders")


def test_a_frozen_leader_counts_until_its_deadline(sim: Simulation, a: Puppet, b: Puppet) -> None:
    a.act(a.stand(), 10.0)
    token = b.stand()
    a.process.freeze()
    sim.run(9.9)
    b.act(token, 1.0)
    broken(sim, "two leaders")


def test_a_crashed_leader_counts_no_more(sim: Simulation, a: Puppet, b: Puppet) -> None:
    a.act(a.stand(), 10.0)
    token = b.stand()
    sim.run(5.0)
    sim.crash(a.process)
    a.leave()
    b.act(token, 1.0)
    sim.judge()


def test_who_acts_without_a_key_is_a_phantom(sim: Simulation, a: Puppet) -> None:
    a.stand()
    a.act(77, 1.0)
    broken(sim, "a acts .* token 77 while first in the store is")


def test_who_acts_while_another_is_first_is_found(sim: Simulation, a: Puppet, b: Puppet) -> None:
    a.stand()
    b.act(b.stand(), 1.0)
    broken(sim, "while first in the store is")


def test_who_acts_when_its_key_goes_is_found(sim: Simulation, a: Puppet) -> None:
    a.act(a.stand(), 10.0)
    sim.run(1.0)
    a.leave()
    broken(sim, "the key is gone")


def test_a_key_deleted_from_outside_excuses_its_leader_for_a_while_only(
    sim: Simulation, a: Puppet
) -> None:
    token = a.stand()
    a.act(token, 100.0)
    sim.delete_from_outside(a.key)
    sim.run(LEASE_TTL - 0.1)
    a.act(token, 1.0)
    sim.judge()
    a.rest()
    sim.run(0.2)
    a.act(token, 1.0)
    broken(sim, "while first in the store is")


def test_a_smaller_token_is_found_unless_it_was_accepted(
    sim: Simulation, a: Puppet, b: Puppet
) -> None:
    small = a.stand()
    b.stand()
    a.leave()
    large = a.stand()
    b.leave()
    a.act(large, 1.0)
    a.rest()
    sim.restore(small)
    sim.history.reset_tokens()
    a.act(small, 1.0)
    sim.judge()
    a.rest()
    sim.history.violations.clear()
    sim.history.said(a.process, "status", small, 10.0)
    sim.judge()
    a.leave()
    broken(sim, "says leader in status")


def test_a_token_that_comes_back_is_found(sim: Simulation, a: Puppet, b: Puppet) -> None:
    first = a.stand()
    a.act(first, 1.0)
    a.rest()
    a.leave()
    b.act(b.stand(), 1.0)
    b.rest()
    a.act(first, 1.0)
    broken(sim, "after b has acted with token")


def test_a_term_may_go_on_after_a_suspension(sim: Simulation, a: Puppet) -> None:
    token = a.stand()
    a.act(token, 1.0)
    sim.run(5.0)
    a.act(token, 1.0)
    sim.judge()
    assert sim.history.terms == 1


def test_an_output_that_outlives_its_term_is_found(sim: Simulation, a: Puppet) -> None:
    sim.history.said(a.process, "status", a.stand(), 10.0)
    sim.run(1.0)
    a.leave()
    broken(sim, "says leader in status .* and the key is gone")


def test_an_output_taken_back_or_expired_in_time_is_fine(sim: Simulation, a: Puppet) -> None:
    sim.history.said(a.process, "status", a.stand(), 10.0)
    sim.history.unsaid(a.process, "status")
    a.leave()
    sim.history.said(a.process, "http", a.stand(), 5.0)
    sim.run(5.0)
    a.leave()
    sim.judge()


def test_an_output_that_speaks_of_no_term_is_found(sim: Simulation, a: Puppet) -> None:
    sim.history.said(a.process, "status", 5, 10.0)
    broken(sim, "says leader in status .* token 5 while first in the store is None")


def test_an_output_of_a_crashed_process_counts(sim: Simulation, a: Puppet, b: Puppet) -> None:
    token = a.stand()
    sim.history.said(a.process, "status", token, 10.0)
    sim.crash(a.process)
    a.leave()
    broken(sim, "a says leader in status")


def test_a_time_without_a_leader_is_found(sim: Simulation, a: Puppet) -> None:
    sim.run(6.0)
    a.act(a.stand(), 100.0)
    sim.run(10.0)
    sim.judge(led_within=6.0)
    with pytest.raises(JudgementError, match=r"nobody led in \[0\.000000, 6\.000000\)"):
        sim.judge(led_within=5.9)


def test_time_without_a_leader_counts_anew_after_each_fault_and_not_during_one(
    sim: Simulation, a: Puppet
) -> None:
    sim.cut(a.process, 0)
    sim.cut(a.process, 1)
    sim.run(50.0)
    sim.heal(member=0)
    sim.run(50.0)
    sim.heal()
    sim.run(4.0)
    sim.set_weather(sim.network.weather)
    sim.run(4.0)
    sim.judge(led_within=4.0)
    assert list(sim.history.leaderless()) == [(100.0, 104.0), (104.0, 108.0)]


def test_a_key_that_nobody_knows_is_a_zombie(sim: Simulation, a: Puppet) -> None:
    a.stand()
    sim.judge(is_settled=True)
    a.known.clear()
    with pytest.raises(JudgementError, match="known to nobody"):
        sim.judge(is_settled=True)
    sim.history.foreign.add(a.key)
    sim.judge(is_settled=True)
