import pytest

from sidecar.core.codec import Proposal, encode_proposal
from sidecar.core.handover import BATCH_LIMIT, HandoverPlan, plan_handover, preferred
from sidecar.core.keys import Layout
from sidecar.core.queue import Entry, QueueReplica
from sidecar.core.store import Header, KeyValue
from sidecar.errors import Refused

LAYOUT = Layout("/e")


def replica(*ids: str, pinned: bool = False, **priorities: int) -> QueueReplica:
    """A queue in this order; ids that begin with "go" are another program's."""
    kvs = []
    for n, id_ in enumerate(ids, start=1):
        own = encode_proposal(Proposal(id_, "", priorities.get(id_, 100)))
        value = id_.encode() if id_.startswith("go") else own
        kvs.append(KeyValue(LAYOUT.candidate(n), value, n, n, n))
    if pinned:
        kvs.append(KeyValue(LAYOUT.pin, b"", 50, 50, 2))
    queue = QueueReplica(LAYOUT)
    queue.replace(Header(100, 1, 1), kvs)
    return queue


FIRST = LAYOUT.candidate(1)


def names(entries: tuple[Entry, ...]) -> list[str]:
    return [entry.proposal.id for entry in entries]


def test_without_a_name_the_next_in_the_queue_comes_whoever_it_is() -> None:
    plan = plan_handover(replica("a", "go-b", "c"), FIRST, "")
    assert plan == HandoverPlan(replica("a", "go-b", "c").entries[1])


def test_the_waiters_before_a_named_candidate_go_with_the_own_key() -> None:
    plan = plan_handover(replica("a", "b", "c", "d"), FIRST, "d")
    assert plan.target.proposal.id == "d"
    assert plan.batches == ()
    assert names(plan.last) == ["b", "c"]


def test_many_waiters_are_moved_in_batches_before() -> None:
    ids = [f"m{n}" for n in range(2 * BATCH_LIMIT + 12)]
    plan = plan_handover(replica("a", *ids, "z"), FIRST, "z")
    assert [len(batch) for batch in plan.batches] == [BATCH_LIMIT, 12]
    assert len(plan.last) == BATCH_LIMIT
    assert names((*plan.batches[0], *plan.batches[1], *plan.last)) == ids


def test_a_candidate_may_be_named_by_its_key() -> None:
    key = LAYOUT.candidate(3).decode()
    assert plan_handover(replica("a", "b", "b"), FIRST, key).target.token == 3


@pytest.mark.parametrize(
    ("queue", "to", "says"),
    [
        (replica("a"), "", "nobody else stands"),
        (replica(), "", "only the candidate that is first"),
        (replica("a", "b"), "x", "no candidate 'x' stands; waiting: b"),
        (replica("a"), "x", "waiting: nobody"),
        (replica("a", "b", "b"), "b", "stands more than once"),
        (replica("a", "b"), "a", "leads already"),
        (replica("a", "go-b", "c"), "c", "put there by another program"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(
    queue: QueueReplica, to: str, says: str
) -> None:
    with pytest.raises(Refused, match=says):
        plan_handover(queue, FIRST, to)


def test_only_the_first_hands_over() -> None:
    with pytest.raises(Refused, match="first in the queue"):
        plan_handover(replica("a", "b", "c"), LAYOUT.candidate(2), "c")


def settled(queue: QueueReplica) -> set[tuple[bytes, int]]:
    return {(entry.key, entry.token) for entry in queue.entries}


def test_priority_prefers_the_highest_that_is_settled() -> None:
    queue = replica("a", "b", "c", "d", b=200, c=300, d=200)
    best = preferred(queue, FIRST, 100, settled(queue))
    assert best is not None
    assert best.proposal.id == "c"
    without = settled(queue) - {(LAYOUT.candidate(3), 3)}
    second = preferred(queue, FIRST, 100, without)
    assert second is not None
    assert second.proposal.id == "b"


def test_priority_moves_nobody_who_is_no_better() -> None:
    queue = replica("a", "b", b=100)
    assert preferred(queue, FIRST, 100, settled(queue)) is None


def test_priority_never_reaches_past_a_foreign_key() -> None:
    queue = replica("a", "go-b", "c", c=300)
    assert preferred(queue, FIRST, 100, settled(queue)) is None


def test_priority_rests_while_a_pin_exists_or_the_own_key_is_not_first() -> None:
    pinned = replica("a", "b", pinned=True, b=300)
    assert preferred(pinned, FIRST, 100, settled(pinned)) is None
    queue = replica("a", "b", b=300)
    assert preferred(queue, LAYOUT.candidate(2), 100, settled(queue)) is None
    assert preferred(replica(), FIRST, 100, set()) is None
