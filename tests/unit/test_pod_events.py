"""What becomes an Event, and what it looks like."""

from dataclasses import replace
from pathlib import Path

from sidecar.core.state import ElectionState, Link, Reason
from sidecar.kube.access import PodAccess
from sidecar.kube.events import ELECTED, STEPPED_DOWN, Happening, Story, event
from tests.support.outputs import FOLLOWER, LONG, leading, stepped_down

ACCESS = PodAccess("master-0", "shop", "u-1", "10.0.0.1", 443, Path("/none"))


def told(*states: ElectionState) -> list[tuple[str, int, bool]]:
    """Return what, token and whether it is a warning, of all that these states tell."""
    story = Story()
    happened = [one for state in states for one in story.note(state, 0.0)]
    return [(one.what, one.token, one.is_warning) for one in happened]


def test_a_term_is_told_when_it_begins_and_when_it_ends() -> None:
    leader = leading(LONG, 100)
    renewed = replace(leader, deadline=LONG + 1)
    assert told(FOLLOWER, leader, renewed, stepped_down(leader), FOLLOWER) == [
        (ELECTED, 100, False),
        (STEPPED_DOWN, 100, False),
    ]


def test_a_term_that_was_taken_away_is_a_warning() -> None:
    leader = leading(LONG, 100)
    assert told(leader, stepped_down(leader, Reason.KEY_GONE))[1] == (STEPPED_DOWN, 100, True)


def test_a_suspension_is_told_only_when_the_term_ends_by_it() -> None:
    leader = leading(LONG, 100)
    suspended = replace(stepped_down(leader, Reason.DEADLINE_PASSED), link=Link.SUSPENDED)
    lost = replace(suspended, link=Link.LOST, reason=Reason.SESSION_LOST)
    assert told(leader, suspended, leader) == [(ELECTED, 100, False)]
    assert told(leader, suspended, lost)[1:] == [(STEPPED_DOWN, 100, True)]


def test_a_term_right_after_another_ends_that_one() -> None:
    first, second = leading(LONG, 100), leading(LONG, 120)
    assert told(first, second) == [
        (ELECTED, 100, False),
        (STEPPED_DOWN, 100, True),
        (ELECTED, 120, False),
    ]


def test_a_resumed_term_began_before() -> None:
    leader = replace(leading(LONG, 100), reason=Reason.RESUMED)
    assert told(leader, stepped_down(leader)) == [(STEPPED_DOWN, 100, False)]


def test_an_event_is_about_the_pod_and_is_named_by_its_term() -> None:
    happening = Happening(ELECTED, 8123, "leads /e with fencing token 8123", 1_800_000_000.9)
    made = event(happening, ACCESS, "u-1")
    assert made["metadata"] == {"name": "master-0.leader-elected.8123", "namespace": "shop"}
    assert made["involvedObject"] == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "master-0",
        "namespace": "shop",
        "uid": "u-1",
    }
    assert (made["type"], made["reason"]) == ("Normal", ELECTED)
    assert made["firstTimestamp"] == made["lastTimestamp"] == "2027-01-15T08:00:00Z"


def test_long_names_stay_within_what_the_api_takes() -> None:
    access = replace(ACCESS, name=f"{'a' * 199}-{'b' * 50}")
    made = event(Happening(STEPPED_DOWN, 2**63 - 1, "x" * 5000, 0.0), access, "")
    assert len(made["metadata"]["name"]) <= 253
    assert "-." not in made["metadata"]["name"]
    assert len(made["message"]) <= 1024
    assert "uid" not in made["involvedObject"]
