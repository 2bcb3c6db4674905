"""Events are told on transitions, each once, with the measured gap."""

from typing import Any

from sidecar.operator.status import Seen, status_of
from sidecar.operator.story import Gaps, Happening, conditions_changed, event
from sidecar.operator.view import View
from tests.operator.things import NOW, election, pod, queue, term, view


def told(*views: View) -> list[str]:
    found: list[str] = []
    old: dict[str, Any] = {}
    for n, seen in enumerate(views):
        new = status_of(Seen(election(status=old), seen), NOW + n)
        found += [each.what for each in conditions_changed(old, new)]
        old = new
    return found


def test_what_is_as_usual_at_the_start_is_no_news() -> None:
    assert told(queue("m-0"), queue("m-0"), queue("m-1")) == []


def test_what_is_not_as_usual_is_told_once_and_its_end_too() -> None:
    assert told(queue("m-0"), view(), view(), queue("m-0")) == ["LeaderLost", "LeaderBack"]
    assert told(queue("m-0"), queue("m-0", trouble="no"), queue("m-0", trouble="x")) == [
        "StoreUnreachable"
    ]
    assert told(queue("m-0"), queue("m-0", trouble="no"), queue("m-0")) == [
        "StoreUnreachable",
        "StoreReachable",
    ]


def test_a_pause_is_told_as_one_and_by_no_warning() -> None:
    old = status_of(Seen(election(), queue("m-0")), NOW)
    new = status_of(Seen(election(status=old), queue("m-0", is_paused=True)), NOW)
    found = {each.what: each.is_warning for each in conditions_changed(old, new)}
    assert found["Paused"] is False


def test_what_was_true_before_an_outage_is_not_told_again_after_it() -> None:
    broken = queue("m-0", trouble="no answer")
    assert told(queue("m-0"), broken, queue("m-0")).count("LeaderBack") == 0


def test_the_gap_ends_with_the_new_leaders_word() -> None:
    gaps = Gaps()
    first = (term(10, "m-0"),)
    gaps.note(queue("m-0", "m-1", history=first), 100.0)
    assert gaps.tell(queue("m-0", "m-1", history=first), 100.0) == (None, None)
    changed = queue("m-1", first=11, history=first)
    gaps.note(changed, 200.0)
    assert gaps.tell(changed, 200.0) == (None, 1.0)
    spoken = queue("m-1", first=11, history=(term(11, "m-1", before="handover"), *first))
    gaps.note(spoken, 200.025)
    happening, later = gaps.tell(spoken, 200.03)
    assert happening is not None
    assert later is None
    assert happening.message == (
        "m-1 leads with fencing token 11, after m-0, whose term ended by handover, "
        "after 25 ms without a leader"
    )
    assert gaps.tell(spoken, 200.03) == (None, None)


def test_a_leader_that_says_nothing_is_told_of_all_the_same() -> None:
    gaps = Gaps()
    gaps.note(queue("m-0"), 100.0)
    changed = queue("m-1", first=11)
    gaps.note(changed, 200.0)
    happening, _ = gaps.tell(changed, 201.0)
    assert happening is not None
    assert "without a leader" not in happening.message


def test_a_gap_in_which_nobody_stood_counts_from_its_beginning() -> None:
    gaps = Gaps()
    gaps.note(queue("m-0"), 100.0)
    gaps.note(view(), 200.0)
    assert gaps.tell(view(), 200.0) == (None, None)
    gaps.note(queue("m-1", first=20, history=(term(20, "m-1"),)), 204.0)
    assert gaps.last == 4.0


def test_who_leads_when_the_operator_begins_is_no_news() -> None:
    gaps = Gaps()
    gaps.note(View(), 1.0)
    seen = queue("m-0", history=(term(10, "m-0"),))
    gaps.note(seen, 2.0)
    assert gaps.tell(seen, 5.0) == (None, None)
    assert gaps.last is None


def test_an_event_of_the_same_term_has_the_same_name() -> None:
    happening = Happening("LeaderChanged", "x" * 5000, "11")
    first, second = (event(happening, election(), NOW + n, "op-0") for n in range(2))
    assert first["metadata"]["name"] == second["metadata"]["name"] == "master.leader-changed.11"
    assert first["involvedObject"]["kind"] == "Election"
    assert len(first["message"]) == 1000
    about = event(Happening("LeaderElected", "", "11", pod=pod("m-0")), election(), NOW, "op-0")
    assert about["involvedObject"]["uid"] == "uid-of-m-0"
    assert about["metadata"]["name"] == "m-0.leader-elected.11"
