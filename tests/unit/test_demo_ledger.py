"""The demo's judge: it must see two leaders, a token that did not grow, and measure gaps."""

import pytest

from sidecar.demo.ledger import Ledger, View
from sidecar.demo.story import Story
from sidecar.election.ports import SystemClock

A, B = "master-1", "master-2"


def leader(id_: str, token: int, *, deadline: float, since: float) -> View:
    return View(id_, leads=True, token=token, deadline=deadline, since=since, reason="elected")


def follower(id_: str, since: float = 0.0, reason: str = "waiting") -> View:
    return View(id_, since=since, reason=reason)


def silent(id_: str) -> View:
    return View(id_, reason="expired")


def test_the_gap_of_a_handover_is_between_the_stamps_of_both() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0), follower(B)], 10.2)
    ledger.note(
        [follower(A, since=11.0, reason="handover"), leader(B, 5, deadline=16.0, since=11.25)], 11.5
    )
    assert [(i.id, i.token, i.end, i.gap) for i in ledger.intervals] == [
        (A, 2, 11.0, 0.0),
        (B, 5, None, 0.25),
    ]
    assert ledger.intervals[0].why == "handover"
    assert ledger.broken == []


def test_one_that_died_leads_until_the_deadline_it_wrote_last() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0), follower(B)], 10.2)
    ledger.note([leader(A, 2, deadline=17.0, since=10.0), follower(B)], 16.0)
    ledger.note([silent(A), follower(B)], 17.1)
    assert [i.end for i in ledger.intervals] == [17.0]
    ledger.note([silent(A), leader(B, 5, deadline=23.0, since=18.0)], 18.1)
    assert ledger.intervals[1].gap == 1.0
    assert ledger.broken == []


def test_a_suspended_term_that_goes_on_counts_from_when_it_was_seen() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0)], 10.2)
    ledger.note([follower(A, since=10.0, reason="deadline_passed")], 15.1)
    ledger.note([leader(A, 2, deadline=25.0, since=10.0)], 20.0)
    first, second = ledger.intervals
    assert first.end == 15.0
    assert second.goes_on
    assert (second.start, second.gap) == (20.0, 5.0)
    assert ledger.terms == 1
    assert ledger.broken == []


def test_a_resumed_term_without_a_break_is_one_interval() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0)], 10.2)
    ledger.note([leader(A, 2, deadline=16.0, since=12.0)], 12.0)
    assert len(ledger.intervals) == 1


def test_two_leaders_in_one_look_break_the_promise() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0), follower(B)], 10.2)
    ledger.note(
        [leader(A, 2, deadline=15.0, since=10.0), leader(B, 5, deadline=17.0, since=12.0)], 12.1
    )
    assert "two led at once: master-1 (token 2) and master-2 (token 5)" in ledger.broken


def test_a_leader_before_the_end_of_a_dead_ones_deadline_breaks_the_promise() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0), follower(B)], 10.2)
    ledger.note([silent(A), leader(B, 5, deadline=19.0, since=14.5)], 15.1)
    assert ledger.broken == ["master-2 (token 5) began 500 ms too early"]


def test_a_token_that_does_not_grow_breaks_the_promise() -> None:
    for token in (4, 5):
        ledger = Ledger()
        ledger.note([leader(A, 5, deadline=15.0, since=10.0), follower(B)], 10.2)
        ledger.note(
            [
                follower(A, since=11.0, reason="resigned"),
                leader(B, token, deadline=16.0, since=11.1),
            ],
            11.5,
        )
        assert ledger.broken == [
            f"the token did not grow: master-2 leads with {token}, after master-1 with 5"
        ]


def test_who_wakes_up_with_an_old_token_breaks_the_promise() -> None:
    ledger = Ledger()
    ledger.note([leader(A, 2, deadline=15.0, since=10.0), follower(B)], 10.2)
    ledger.note([silent(A), leader(B, 5, deadline=20.0, since=16.0)], 16.1)
    ledger.note([leader(A, 2, deadline=30.0, since=10.0), follower(B, 17.0, "resigned")], 17.1)
    assert ledger.broken == ["the token did not grow: master-1 leads with 2, after master-2 with 5"]


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("handover", "stepped down: handover"),
        ("waiting", "stepped down"),  # it queued again before we looked
        ("deadline_passed", "stopped acting: deadline passed"),
    ],
)
def test_the_story_tells_why_a_term_ended_as_far_as_the_file_still_says(
    reason: str, told: str
) -> None:
    ledger = Ledger()
    story = Story(ledger, SystemClock())
    ledger.note([leader(A, 2, deadline=15.0, since=10.0)], 10.2)
    ledger.note([follower(A, since=11.0, reason=reason)], 11.5)
    story.follow()
    assert [event.text for event in story.last(9)] == [f"{A} leads, token 2", f"{A} {told}"]
