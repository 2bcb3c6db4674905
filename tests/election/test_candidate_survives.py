"""Whatever the store answers to whichever duty, a sidecar's candidate lives on, and leads again."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.core.codec import Action, Request, encode_request
from sidecar.core.state import Reason
from sidecar.core.store import Delete, Put, Txn
from sidecar.errors import (
    Compacted,
    CoordinatorError,
    LeaseExists,
    LeaseNotFound,
    PermissionDenied,
    Rejected,
    StoreFull,
    Unavailable,
)
from tests.election.sidecars import Sidecar
from tests.election.support import LAYOUT, SOON, TTL, WAY, puts, queue, removes
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

ERRORS = [
    Unavailable("no answer"),
    Rejected("no"),
    PermissionDenied("not you"),
    StoreFull("full"),
    LeaseNotFound("gone"),
]


def is_kind(prefix: bytes) -> Callable[[Any], bool]:
    return lambda txn: isinstance(txn, Txn) and puts(prefix)(txn)


def is_delete(txn: Any) -> bool:
    return any(isinstance(op, Delete) and op.end is None for op in txn.then)


answers = is_kind(LAYOUT.answer(""))
DUTIES: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("grant", "grant", lambda _: True),
    ("revoke", "revoke", lambda _: True),
    ("renewal", "prove", lambda _: True),
    ("watch", "watch", lambda _: True),
    ("read", "read", lambda _: True),
    ("campaign", "txn", is_kind(LAYOUT.candidates)),
    ("history", "txn", is_kind(LAYOUT.name.encode() + b".history/")),
    ("answer", "txn", answers),
    ("asker", "read", lambda key: key == LAYOUT.request("1")),
    ("resign", "txn", is_delete),
]
CASES = [
    pytest.param(kind, matching, error, id=f"{name}-{type(error).__name__}")
    for name, kind, matching in DUTIES
    for error in [
        *ERRORS,
        *([LeaseExists("taken")] if kind == "grant" else []),
        *([Compacted(7)] if kind == "watch" else []),
    ]
]


def is_asked_to_resign(sim: Simulation, a: Sidecar, nonce: str) -> None:
    """Ask as `Commands` does, on a lease that lives on."""
    lease = 0x100 + int(nonce)
    sim.etcd.grant(lease, 3600.0)
    request = Request(Action.RESIGN, a.state.token, "", lease)
    sim.etcd.txn(Txn(then=(Put(LAYOUT.request(nonce), encode_request(request), lease),)))


@pytest.mark.parametrize(("kind", "matching", "error"), CASES)
def test_no_answer_of_the_store_ends_it(
    sim: Simulation, kind: str, matching: Callable[[Any], bool], error: CoordinatorError
) -> None:
    a = Sidecar(sim, drain=1.0 if matching is answers else 0.0)  # only then it answers
    fates = [Fate(matching=matching, error=error) for _ in range(4)]
    for fate in fates[:2]:
        sim.destine(a.process, kind, fate)  # while it begins
    a.start().until_it_leads(within=4 * TTL)
    for fate in fates[2:]:
        sim.destine(a.process, kind, fate)  # and while it leads, obeys and leaves
    is_asked_to_resign(sim, a, "1")
    sim.break_watch(a.process)
    sim.run(4 * TTL)
    assert a.process.is_alive
    a.until_it_leads(within=4 * TTL)
    a.call(a.candidate.stand_back)
    sim.run(2 * TTL)
    assert a.process.is_alive
    assert queue(sim) == []
    a.call(a.candidate.stand_again)
    a.until_it_leads(within=4 * TTL)
    a.stop(within=3 * TTL)
    sim.run(2 * TTL)
    assert queue(sim) == []
    assert len(sim.network._fates[a.process.name, kind]) < 4  # it did meet them


# Health in every phase


def test_a_stand_back_during_a_drain_changes_nothing_but_what_follows(sim: Simulation) -> None:
    a = Sidecar(sim, drain=3.0).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    a.call(lambda: a.candidate.stand_back(Reason.RESIGNED))
    sim.run(SOON)
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    assert not b.leads
    b.until_it_leads(within=2 * SOON)
    sim.run(2 * TTL)
    assert a.meter.step_downs == ["resigned"]
    assert b.state.candidates == ("b",)


def test_a_stand_again_during_a_drain_queues_again_behind_the_others(sim: Simulation) -> None:
    a = Sidecar(sim, drain=3.0).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    a.call(a.candidate.stand_back)
    sim.run(SOON)
    a.call(a.candidate.stand_again)
    assert not a.leads  # a term that was stepped down from never goes on
    b.until_it_leads(within=3 * SOON)
    sim.run(SOON)
    assert b.state.candidates == ("b", "a")


def test_a_stand_again_while_the_resign_is_unanswered_begins_another_term(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    token = a.state.token
    sim.destine(a.process, "txn", Fate(matching=removes(a.state.key), loses_request=True))
    a.call(a.candidate.stand_back)
    sim.run(WAY)
    a.call(a.candidate.stand_again)
    a.until_it_leads(within=TTL)
    assert a.state.token > token


def test_a_stand_back_while_suspended_gives_the_key_up_when_it_can(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    sim.elect(leaderless_for=TTL + SOON)
    sim.run(TTL)
    assert a.state.reason is Reason.DEADLINE_PASSED
    a.call(a.candidate.stand_back)
    sim.run(3 * TTL)
    assert queue(sim) == []
    assert a.meter.step_downs == ["unhealthy"]
    a.call(a.candidate.stand_again)
    a.until_it_leads()


def test_a_stand_back_and_again_at_once_keeps_a_waiter_or_its_claim(sim: Simulation) -> None:
    a = Sidecar(sim).start().until_it_leads()
    b = Sidecar(sim, "b").start().until_it_waits()
    b.call(b.candidate.stand_back)
    b.call(b.candidate.stand_again)
    sim.run(SOON)
    assert a.state.candidates == ("a", "b")
    assert a.leads


def test_a_second_stop_changes_nothing(sim: Simulation) -> None:
    a = Sidecar(sim, drain=2.0).start().until_it_leads()
    began = sim.now
    a.call(a.candidate.stop)
    sim.run(SOON)
    a.call(a.candidate.stop)
    a.until_it_ends(within=2 * SOON)
    assert sim.now >= began + 2.0
    assert a.candidate.given_back
    assert a.meter.step_downs == ["shutdown"]
