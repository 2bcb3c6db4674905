"""A program that comes back within the TTL takes up its own candidacy, when it is still its own."""

from dataclasses import dataclass

import pytest

from sidecar.core.candidacy import Phase
from sidecar.core.store import Put, Txn
from sidecar.election import Election
from sidecar.election.session import EXPIRED
from sidecar.errors import SessionLost, Unavailable
from tests.election.support import LAYOUT, MARGIN, SOON, TTL, Host, Program, queue, removes
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


@dataclass(frozen=True)
class Former:
    """What a leader that was killed a moment ago has left."""

    program: Program
    key: str
    rev: int


def crashed(sim: Simulation) -> Former:
    a = Program(sim).campaign()
    sim.run(SOON)
    sim.crash(a.process)
    return Former(a, a.election.key, a.election.rev)


def heir(sim: Simulation, of: Former) -> Program:
    """Return its next life, on its lease."""
    return of.program.reopen()


def test_the_same_term_goes_on_where_key_lease_and_revision_agree(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    assert b.session.is_taken_up
    assert b.do(b.election.resume(a.key, a.rev))
    assert b.election.is_leader()
    assert (b.election.key, b.election.rev) == (a.key, a.rev)
    sim.run(3 * TTL)
    assert b.election.is_leader()
    b.do(b.election.resign())
    assert queue(sim) == []


def test_who_has_resumed_leads_at_once_however_late_its_watch_is(sim: Simulation) -> None:
    a = crashed(sim)
    host = Host(sim, "late")
    sim.destine(host.process, "watch", Fate(request_delay=SOON))

    async def case() -> None:
        async with (
            host.session(lease=a.program.session.lease) as session,
            Election(session, LAYOUT.name) as election,
        ):
            assert await election.resume(a.key, a.rev)
            assert election.is_leader()

    host.do(case())


@pytest.mark.parametrize("wrong", ["key", "token", "lease"])
def test_what_does_not_agree_is_not_taken_up(sim: Simulation, wrong: str) -> None:
    a = crashed(sim)
    key, token = a.key, a.rev
    if wrong == "lease":
        sim.etcd.grant(0xBAD, 60.0)
        sim.etcd.txn(Txn(then=(Put(key.encode(), b"", 0xBAD),)))
    b = heir(sim, a)
    assert not b.do(
        b.election.resume(
            key + "0" if wrong == "key" else key, token + 1 if wrong == "token" else token
        )
    )
    assert b.election.phase is Phase.OUT
    sim.run(SOON)
    assert not b.election.is_leader()


def test_a_token_that_may_never_act_is_not_taken_up(sim: Simulation) -> None:
    a = crashed(sim)
    a.program.least_token = a.rev + 1
    b = heir(sim, a)
    assert not b.do(b.election.resume(a.key, a.rev))
    assert b.election.phase is Phase.OUT


def test_a_lease_that_has_ended_is_told(sim: Simulation) -> None:
    a = crashed(sim)
    sim.run(TTL)
    b = heir(sim, a)
    sim.until(lambda: b.session.lost.is_set, within=SOON)
    with pytest.raises(SessionLost, match=EXPIRED):
        b.do(b.election.resume(a.key, a.rev))


def test_an_unanswered_read_is_repeated(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    began = sim.now
    sim.lose_next_request(b.process, "read")
    assert b.do(b.election.resume(a.key, a.rev))
    assert sim.now >= began + TTL / 2
    assert b.election.is_leader()


def test_a_session_lost_while_the_read_is_under_way_is_told(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    sim.destine(b.process, "read", Fate(reply_delay=SOON))
    resuming = b.begin(b.election.resume(a.key, a.rev))
    sim.run(0.1)
    b.process.call(b.session.orphan)
    sim.until(resuming.done, within=2 * SOON)
    with pytest.raises(SessionLost, match="orphaned"):
        resuming.result()
    assert not b.election.is_leader()


def test_a_session_lost_before_the_proof_is_told(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    sim.run(0.5)
    sim.destine(b.process, "prove", Fate(request_delay=SOON))
    resuming = b.begin(b.election.resume(a.key, a.rev))
    sim.run(0.1)
    assert b.election.phase is Phase.STANDING
    assert not b.election.is_leader()  # no proof yet
    b.process.call(b.session.orphan)
    sim.until(resuming.done, within=SOON)
    with pytest.raises(SessionLost, match="orphaned"):
        resuming.result()


def test_a_key_that_goes_before_the_proof_is_no_term(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    sim.run(0.5)
    sim.destine(b.process, "prove", Fate(request_delay=SOON))
    resuming = b.begin(b.election.resume(a.key, a.rev))
    sim.run(0.1)
    sim.delete_from_outside(a.key.encode())
    sim.until(resuming.done, within=SOON)
    assert resuming.result() is False
    assert b.election.phase is Phase.OUT


def test_in_a_pause_the_place_is_taken_up_and_nobody_acts(sim: Simulation) -> None:
    a = crashed(sim)
    sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)))
    b = heir(sim, a)
    assert b.do(b.election.resume(a.key, a.rev))
    sim.run(SOON)
    assert b.election.is_first
    assert not b.election.is_leader()


def test_a_key_on_a_lease_taken_up_is_left_alone_until_it_is_known_whose_it_is(
    sim: Simulation,
) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    sim.run(3 * TTL)  # it only keeps the lease
    assert queue(sim) == [a.key.encode()]
    b.do(b.election.campaign("def"))  # finds its place and keeps it
    assert b.election.rev == a.rev
    assert b.election.is_leader()


def test_a_waiter_behind_a_leader_that_comes_back_goes_on_waiting(sim: Simulation) -> None:
    a, w = Program(sim).campaign(), Program(sim, "w").stand()
    sim.crash(a.process)
    sim.run(SOON)
    a.reopen()
    a.do(a.election.campaign("def"))
    assert a.election.is_leader()
    sim.run(3 * TTL)
    assert not w.election.is_first


def test_the_old_life_cannot_go_on_beside_the_new_one(sim: Simulation) -> None:
    a = Program(sim).campaign()
    frozen_at = a.process.now()
    sim.freeze(a.process, 2 * TTL)
    assert a.election.deadline <= frozen_at + TTL - MARGIN
    sim.run(TTL + SOON)
    b = Program(sim, "b").campaign()
    sim.run(TTL)
    assert b.election.is_leader()
    assert not a.election.is_leader()
    sim.run(SOON)
    assert a.election.phase is Phase.OUT


def test_a_resign_right_after_a_resume_removes_the_key(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    b.do(b.election.resume(a.key, a.rev))
    sim.destine(b.process, "txn", Fate(matching=removes(a.key), loses_request=True))
    b.do(b.election.resign())
    assert queue(sim) == []


def test_a_read_without_an_answer_goes_to_the_next_member(sim: Simulation) -> None:
    a = crashed(sim)
    b = heir(sim, a)
    sim.destine(b.process, "read", Fate(error=Unavailable("not yet")))
    assert b.do(b.election.resume(a.key, a.rev))
