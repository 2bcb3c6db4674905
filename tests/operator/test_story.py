"""Events are told on transitions, each once, with the measured gap."""

from typing import Any

from sidecar.operator.status import Seen, status_of
from sidecar.operator.story import Gaps, Happening, conditions_changed, event
from sidecar.operator.view import View
from tests.operator.things import NOW, election, entry, pod, queue, term, view


def told(*views: View) -> list[str]:
    found: list[str] = []
    old: dict[str, Any] = {}
    for n, seen in enumerate(views):
        new = status_of(Seen(election(status=old), seen), NOW + n)
        found += [each.what for each in conditions_changed(old, new)]
        old = new
    return found


def news(gaps: Gaps, seen: View, now: float) -> str:
    """What is told of a change of the leader."""
    happening, _ = gaps.tell(seen, now)
    assert happening is not None
    return happening.message


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
    gaps = Gaps({})
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
    gaps = Gaps({})
    gaps.note(queue("m-0"), 100.0)
    changed = queue("m-1", first=11)
    gaps.note(changed, 200.0)
    assert "without a leader" not in news(gaps, changed, 201.0)


def test_a_gap_in_which_nobody_stood_counts_from_its_beginning() -> None:
    gaps = Gaps({})
    gaps.note(queue("m-0"), 100.0)
    gaps.note(view(), 200.0)
    assert gaps.tell(view(), 200.0) == (None, None)
    gaps.note(queue("m-1", first=20, history=(term(20, "m-1"),)), 204.0)
    assert gaps.last == 4.0


def test_who_leads_when_the_operator_begins_is_no_news() -> None:
    gaps = Gaps({})
    gaps.note(View(), 1.0)
    seen = queue("m-0", history=(term(10, "m-0"),))
    gaps.note(seen, 2.0)
    assert gaps.tell(seen, 5.0) == (None, None)
    assert gaps.last is None


def status_left(*seen: View) -> dict[str, Any]:
    """The status that a replica wrote which saw this."""
    status: dict[str, Any] = {}
    for n, each in enumerate(seen):
        status = status_of(Seen(election(status=status), each), NOW + n)
    return status


OLD = queue("m-0", "m-1", history=(term(10, "m-0"),))
NEW = queue("m-1", first=11, history=(term(11, "m-1", before="handover"), term(10, "m-0")))
TOLD = "m-1 leads with fencing token 11, after m-0, whose term ended by handover"  # and no gap


def test_a_change_between_two_replicas_is_told_once_by_the_second() -> None:
    gaps = Gaps(status_left(OLD))
    gaps.note(View(), 1.0)
    gaps.note(NEW, 2.0)
    happening, later = gaps.tell(NEW, 2.0)
    assert happening is not None
    assert (happening.message, happening.mark, later) == (TOLD, "11", None)
    assert gaps.last is None
    assert gaps.tell(NEW, 3.0) == (None, None)


def test_what_the_last_replica_has_told_is_not_told_again() -> None:
    for told in (status_left(NEW), status_left(OLD, NEW), status_left(OLD, NEW, view())):
        gaps = Gaps(told)
        gaps.note(NEW, 2.0)
        assert gaps.tell(NEW, 5.0) == (None, None)


def test_a_leader_that_came_while_nobody_led_and_nobody_told_is_told_of() -> None:
    nobody = view(history=OLD.history)
    for told, seen in (
        ((OLD, nobody), (NEW,)),
        ((OLD,), (nobody, NEW)),
        ((OLD, nobody), (nobody, NEW)),
    ):
        gaps = Gaps(status_left(*told))
        for each in seen:
            gaps.note(each, 2.0)
        assert news(gaps, NEW, 2.0) == TOLD


def test_the_terms_between_are_passed_over_and_the_last_one_is_named() -> None:
    gaps = Gaps(status_left(OLD))
    history = (term(30, "m-0"), term(20, "m-2"), term(10, "m-0"))
    seen = queue("m-0", first=30, history=history)
    gaps.note(seen, 2.0)
    assert news(gaps, seen, 2.0) == "m-0 leads with fencing token 30, after m-2"


def test_the_gap_of_a_change_that_we_see_ourselves_is_told_after_one_that_we_did_not() -> None:
    gaps = Gaps(status_left(OLD))
    gaps.note(NEW, 2.0)
    gaps.tell(NEW, 2.0)
    later = queue("m-0", first=20, history=(term(20, "m-0"), *NEW.history))
    gaps.note(later, 3.0)
    said = news(gaps, later, 3.0)
    assert said.startswith("m-0 leads with fencing token 20, after m-1, after 0 ms")


def test_another_programs_leader_writes_no_history_and_is_named_all_the_same() -> None:
    gaps = Gaps({})
    gaps.note(OLD, 1.0)
    gaps.note(view(entry("etcdctl", 15, priority=None), history=OLD.history), 2.0)
    seen = queue("m-1", first=20, history=(term(20, "m-1"), *OLD.history))
    gaps.note(seen, 3.0)
    assert news(gaps, seen, 3.0).startswith("m-1 leads with fencing token 20, after etcdctl")


def test_an_event_of_the_same_term_has_the_same_name() -> None:
    happening = Happening("LeaderChanged", "x" * 5000, "11")
    first, second = (event(happening, election(), NOW + n, "op-0") for n in range(2))
    assert first["metadata"]["name"] == second["metadata"]["name"] == "master.leader-changed.11"
    assert first["involvedObject"]["kind"] == "Election"
    assert len(first["message"]) == 1000
    about = event(Happening("LeaderElected", "", "11", pod=pod("m-0")), election(), NOW, "op-0")
    assert about["involvedObject"]["uid"] == "uid-of-m-0"
    assert about["metadata"]["name"] == "m-0.leader-elected.11"
