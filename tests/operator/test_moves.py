"""When the leader is asked to hand over, and to whom."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.operator.facts import Node
from sidecar.operator.moves import (
    BETWEEN,
    COMMAND,
    CORDON,
    EVICTION,
    LONGEST_TERM,
    PREFERRED,
    SETTLED,
    Move,
    NoMove,
    Scene,
    Settling,
    is_open,
    last_of,
    look_again,
    wanted_move,
)
from sidecar.operator.spec import Window
from sidecar.operator.status import stamp
from sidecar.operator.view import View
from tests.operator.things import NOW, election, entry, following, node, queue, term, view

HERE = {"node-a": node("node-a"), "node-b": node("node-b"), "node-c": node("node-c")}
PODS = (
    following("m-0", node="node-a"),
    following("m-1", node="node-b"),
    following("m-2", node="node-c"),
)


def scene(seen: View | None = None, **said: Any) -> Scene:
    """Three candidates, each on a node of its own, all settled; `said` goes into the Election."""
    seen = seen or queue("m-0", "m-1", "m-2", history=(term(10, "m-0"),))
    changes: dict[str, Any] = {
        name: said.pop(name)
        for name in ("nodes", "closing", "pods", "last", "lasted")
        if name in said
    }
    settled = frozenset((e.key, e.token) for e in seen.entries)
    settled = said.pop("settled", settled)
    fields: dict[str, Any] = {"nodes": HERE, "pods": PODS, **changes}
    return Scene(election(**said), seen, settled=settled, **fields)


def cordoned(*names: str) -> dict[str, Node]:
    return {name: node(name, is_closed=name in names) for name in HERE}


def moved_to(found: object) -> str:
    assert isinstance(found, Move), found
    return found.target.proposal.id


def test_without_a_reason_nobody_moves() -> None:
    assert wanted_move(scene(), NOW) is None
    assert look_again(scene()) is None


# Cordons


def test_a_leader_on_a_cordoned_node_hands_over_to_the_next_that_stays() -> None:
    found = wanted_move(scene(nodes=cordoned("node-a")), NOW)
    assert moved_to(found) == "m-1"
    assert isinstance(found, Move)
    assert (found.reason, found.token) == (CORDON, 10)


def test_draining_several_nodes_passes_over_those_that_go_too() -> None:
    assert moved_to(wanted_move(scene(nodes=cordoned("node-a", "node-b")), NOW)) == "m-2"


def test_where_every_node_is_cordoned_the_leader_stays_and_it_is_said() -> None:
    found = wanted_move(scene(nodes=cordoned("node-a", "node-b", "node-c")), NOW)
    assert isinstance(found, NoMove)
    assert "node-a is cordoned" in found.message


def test_a_cordon_elsewhere_moves_nobody() -> None:
    assert wanted_move(scene(nodes=cordoned("node-b")), NOW) is None


def test_a_pod_that_is_about_to_go_is_no_target() -> None:
    going = following("m-1", node="node-b", deletionTimestamp="2026-11-21T04:50:11Z")
    pods = (PODS[0], going, PODS[2])
    assert moved_to(wanted_move(scene(nodes=cordoned("node-a"), pods=pods), NOW)) == "m-2"


def test_a_preferred_candidate_is_the_target_of_a_drain_too() -> None:
    found = scene(nodes=cordoned("node-a"), preferred={"candidate": "m-2"})
    assert moved_to(wanted_move(found, NOW)) == "m-2"


def test_a_candidate_of_higher_priority_is_the_target_and_will_not_be_moved_again() -> None:
    seen = view(entry("m-0", 10), entry("m-1", 11), entry("m-2", 12, priority=200))
    assert moved_to(wanted_move(scene(seen, nodes=cordoned("node-a")), NOW)) == "m-2"


def test_nobody_moves_past_another_programs_key() -> None:
    seen = view(entry("m-0", 10), entry("etcdctl", 11, priority=None), entry("m-2", 12))
    assert isinstance(wanted_move(scene(seen, nodes=cordoned("node-a")), NOW), NoMove)


def test_another_program_that_leads_is_asked_for_nothing() -> None:
    seen = view(entry("m-0", 10, priority=None), entry("m-1", 11))
    assert wanted_move(scene(seen, nodes=cordoned("node-a")), NOW) is None


def test_where_nodes_may_not_be_read_no_cordon_is_known() -> None:
    assert wanted_move(scene(nodes=None), NOW) is None


def test_in_a_pause_and_without_an_answer_nobody_moves() -> None:
    for other in ({"is_paused": True}, {"trouble": "no answer"}):
        seen = queue("m-0", "m-1", "m-2", **other)
        assert wanted_move(scene(seen, nodes=cordoned("node-a")), NOW) is None
    assert wanted_move(scene(View(), nodes=cordoned("node-a")), NOW) is None


def test_further_cordons_are_waited_for_where_evictions_are_held() -> None:
    waiting = scene(nodes=cordoned("node-a"), closing=0.3)
    assert wanted_move(waiting, NOW) is None
    assert look_again(waiting) == 0.3
    assert look_again(scene(nodes=cordoned("node-b"), closing=0.3)) is None
    commanded = scene(nodes=cordoned("node-a"), closing=0.3, annotations={TO: "m-2"})
    assert moved_to(wanted_move(commanded, NOW)) == "m-2"


# Commands

TO = "leader-sidecar.io/handover-to"


@pytest.mark.parametrize("nodes", [HERE, cordoned("node-c")])
def test_a_command_names_the_target_whatever_else_speaks_against_it(nodes: Any) -> None:
    found = wanted_move(scene(nodes=nodes, annotations={TO: "m-2"}), NOW)
    assert isinstance(found, Move)
    assert (found.reason, moved_to(found)) == (COMMAND, "m-2")


@pytest.mark.parametrize(
    ("to", "said"), [("m-9", "no candidate 'm-9' stands; waiting: m-1, m-2"), ("m-0", "leads al")]
)
def test_a_command_that_cannot_be_is_refused_with_the_reason(to: str, said: str) -> None:
    found = wanted_move(scene(annotations={TO: to}), NOW)
    assert isinstance(found, NoMove)
    assert said in found.message


def test_a_command_to_an_id_that_stands_twice_is_refused_unless_a_key_is_named() -> None:
    for ids in (("m-0", "m-1", "m-1"), ("m-1", "m-0", "m-1")):
        seen = queue(*ids)
        found = wanted_move(scene(seen, annotations={TO: "m-1"}), NOW)
        assert isinstance(found, NoMove)
        assert not found.is_done
        assert "'m-1' stands more than once; name one of the keys" in found.message
        last = seen.entries[2].key.decode()
        assert last in found.message
        named = wanted_move(scene(seen, annotations={TO: last}), NOW)
        assert isinstance(named, Move)
        assert named.target == seen.entries[2]


def test_a_command_to_another_programs_leader_is_refused() -> None:
    seen = view(entry("etcdctl", 10, priority=None), entry("m-1", 11))
    found = wanted_move(scene(seen, annotations={TO: "m-1"}), NOW)
    assert isinstance(found, NoMove)
    assert (found.reason, found.token, found.is_done) == (COMMAND, 10, False)
    assert "'etcdctl' leads and was put by another program" in found.message


def test_a_command_in_a_pause_is_refused() -> None:
    seen = queue("m-0", "m-1", is_paused=True)
    found = wanted_move(scene(seen, annotations={TO: "m-1"}), NOW)
    assert isinstance(found, NoMove)
    assert "paused" in found.message


# Preference and age


def test_the_preferred_candidate_is_made_the_leader() -> None:
    for preferred in (
        {"candidate": "m-2"},
        {"nodeSelector": {"matchLabels": {"zone": "c"}}},
        {"podSelector": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
    ):
        nodes = {**HERE, "node-c": node("node-c", zone="c")}
        pods = (*PODS[:2], following("m-2", node="node-c", labels={"disk": "ssd"}))
        found = wanted_move(scene(preferred=preferred, nodes=nodes, pods=pods), NOW)
        assert isinstance(found, Move)
        assert (found.reason, moved_to(found)) == (PREFERRED, "m-2")


def test_a_leader_that_is_preferred_stays() -> None:
    assert wanted_move(scene(preferred={"candidate": "m-0"}), NOW) is None


def test_a_preferred_candidate_has_to_have_stood_for_a_while() -> None:
    assert wanted_move(scene(preferred={"candidate": "m-2"}, settled=frozenset()), NOW) is None
    assert look_again(scene(preferred={"candidate": "m-2"})) is not None


def test_a_preferred_candidate_on_a_cordoned_node_is_not_made_the_leader() -> None:
    assert wanted_move(scene(preferred={"candidate": "m-2"}, nodes=cordoned("node-c")), NOW) is None


def test_preference_moves_the_leader_at_most_once_a_minute() -> None:
    last = {"reason": PREFERRED, "result": "Done", "to": "m-0", "at": stamp(NOW)}
    again = scene(preferred={"candidate": "m-2"}, last=last)
    assert wanted_move(again, NOW + BETWEEN - 1) is None
    assert moved_to(wanted_move(again, NOW + BETWEEN)) == "m-2"


def test_a_move_that_was_made_in_the_future_holds_nobody_back() -> None:
    """The clock of whoever told it was ahead."""
    last = {"reason": PREFERRED, "result": "Done", "to": "m-0", "at": stamp(NOW + 86400)}
    assert moved_to(wanted_move(scene(preferred={"candidate": "m-2"}, last=last), NOW)) == "m-2"
    last["reason"] = LONGEST_TERM
    late = scene(maxTermDuration="1h", last=last)
    assert moved_to(wanted_move(late, NOW + 3600)) == "m-1"


def test_who_was_commanded_to_lead_stays_in_spite_of_preference() -> None:
    seen = queue("m-0", "m-1", "m-2", has_pin=True)
    assert wanted_move(scene(seen, preferred={"candidate": "m-2"}), NOW) is None
    ours = {"reason": CORDON, "result": "Done", "to": "m-0"}
    assert moved_to(wanted_move(scene(seen, preferred={"candidate": "m-2"}, last=ours), NOW))


def test_a_move_before_an_eviction_is_known_from_the_status_and_ends_no_preference() -> None:
    own = {"reason": CORDON, "result": "Done", "to": "m-1", "at": "2026-11-21T04:50:11Z"}
    evicted = {"reason": EVICTION, "result": "Done", "to": "m-0", "at": "2026-11-21T04:50:11Z"}
    assert last_of(own, evicted) == evicted
    assert last_of(None, evicted) == evicted
    assert last_of(own, {**evicted, "at": "2026-11-21T04:50:10Z"}) == own
    assert last_of(own, {**own, "at": "2026-11-21T04:50:12Z"}) == own
    assert last_of(own, None) == own
    ahead = {**own, "token": 10, "at": "2027-11-21T04:50:11Z"}  # its clock was
    assert last_of(ahead, {**evicted, "token": 11}) == {**evicted, "token": 11}
    later = {**ahead, "token": 12}
    assert last_of(later, {**evicted, "token": 11}) == later
    seen = queue("m-0", "m-1", "m-2", has_pin=True)
    assert moved_to(wanted_move(scene(seen, preferred={"candidate": "m-2"}, last=evicted), NOW))


def test_a_term_that_has_lasted_long_enough_ends() -> None:
    old = scene(maxTermDuration="24h")
    assert wanted_move(old, NOW + 86399) is None
    found = wanted_move(old, NOW + 86400)
    assert isinstance(found, Move)
    assert (found.reason, moved_to(found)) == (LONGEST_TERM, "m-1")


def test_a_wall_clock_that_is_ahead_makes_no_old_terms_of_those_that_we_saw_begin() -> None:
    ahead = NOW + 10 * 86400
    assert wanted_move(scene(maxTermDuration="24h", lasted=86399.0), ahead) is None
    assert moved_to(wanted_move(scene(maxTermDuration="24h", lasted=86400.0), ahead)) == "m-1"
    # One that is behind makes them no longer either, and nobody's word is needed for it.
    silent = scene(queue("m-0", "m-1", "m-2"), maxTermDuration="24h", lasted=86400.0)
    assert moved_to(wanted_move(silent, NOW - 86400)) == "m-1"
    last = {"reason": LONGEST_TERM, "result": "Done", "to": "m-0", "at": stamp(ahead)}
    began_anew = scene(maxTermDuration="24h", last=last)
    assert wanted_move(began_anew, ahead + 86399) is None
    assert moved_to(wanted_move(began_anew, ahead + 86400)) == "m-1"


def test_a_preferred_leader_makes_room_for_another_preferred_one_only() -> None:
    old: dict[str, Any] = {"maxTermDuration": "1h", "lasted": 7200.0}
    assert wanted_move(scene(preferred={"candidate": "m-0"}, **old), NOW) is None
    assert moved_to(wanted_move(scene(preferred={"candidate": "m-9"}, **old), NOW)) == "m-1"
    fast = {"nodeSelector": {"matchLabels": {"disk": "fast"}}}
    nodes = {**HERE, **{name: node(name, disk="fast") for name in ("node-a", "node-c")}}
    assert moved_to(wanted_move(scene(preferred=fast, nodes=nodes, **old), NOW)) == "m-2"


def test_age_and_preference_wait_for_a_window_and_a_cordon_does_not() -> None:
    closed = [{"days": ["Mon"], "start": "00:00", "duration": "1m"}]
    monday = dt.datetime(2026, 11, 23, 0, 0, 30, tzinfo=dt.UTC).timestamp()
    tuesday = monday + 86400
    for said in ({"preferred": {"candidate": "m-1"}}, {"maxTermDuration": "1h"}):
        there = scene(maintenanceWindows=closed, **said)
        assert wanted_move(there, tuesday) is None
        assert moved_to(wanted_move(there, monday)) == "m-1"
    there = scene(maintenanceWindows=closed, nodes=cordoned("node-a"))
    assert moved_to(wanted_move(there, tuesday)) == "m-1"


@given(
    day=st.integers(0, 6),
    start=st.integers(0, 1439),
    minutes=st.integers(1, 3000),
    at=st.integers(0, 14 * 1440),
)
def test_a_window_is_open_exactly_in_its_time(day: int, start: int, minutes: int, at: int) -> None:
    monday = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
    moment = monday + dt.timedelta(minutes=at)
    begins = [monday + dt.timedelta(days=7 * week + day, minutes=start) for week in range(-1, 3)]
    expected = any(b <= moment < b + dt.timedelta(minutes=minutes) for b in begins)
    window = Window(frozenset([day]), start * 60.0, minutes * 60.0)
    assert is_open([window], moment.timestamp()) is expected


def test_a_window_may_last_into_the_next_day() -> None:
    late = Window(frozenset([0]), 23 * 3600.0, 2 * 3600.0)
    tuesday = dt.datetime(2026, 11, 24, 0, 30, tzinfo=dt.UTC).timestamp()
    assert is_open([late], tuesday)
    assert not is_open([late], tuesday + 3600)


def test_without_windows_it_is_always_open() -> None:
    assert is_open([], NOW)


def test_a_candidate_is_settled_where_it_has_stood_under_one_key() -> None:
    now = 100.0
    settling = Settling(lambda: now)
    settling.note(queue("m-0", "m-1"))
    now += SETTLED - 1
    settling.note(view(entry("m-0", 10), entry("m-1", 99)))
    now += 1
    settling.note(view(entry("m-0", 10), entry("m-1", 99)))
    assert {token for _, token in settling.settled()} == {10}


def test_how_long_a_term_has_run_is_known_of_those_that_we_saw_begin() -> None:
    now = 100.0
    settling = Settling(lambda: now)
    settling.note(View())
    settling.note(queue("m-0", "m-1"))
    now += 50
    assert settling.lasted() is None
    settling.note(queue("m-1", first=11))
    now += 5
    settling.note(View())  # the store does not answer for a moment
    settling.note(queue("m-1", "m-0", first=11))
    assert settling.lasted() == 5.0


@given(
    closed=st.frozensets(st.sampled_from(list(HERE))),
    preferred=st.sampled_from(["m-0", "m-1", "m-2"]),
    leader=st.permutations(["m-0", "m-1", "m-2"]),
)
def test_whoever_is_moved_to_is_left_in_peace(
    closed: frozenset[str], preferred: str, leader: list[str]
) -> None:
    """A move never begets another one: the target stays, and nobody is liked better."""
    before = scene(queue(*leader), nodes=cordoned(*closed), preferred={"candidate": preferred})
    found = wanted_move(before, NOW)
    if not isinstance(found, Move):
        return
    rest = [e.proposal.id for e in before.view.entries if e != found.target]
    after = scene(
        queue(found.target.proposal.id, *rest, first=20),
        nodes=cordoned(*closed),
        preferred={"candidate": preferred},
    )
    assert not isinstance(wanted_move(after, NOW), Move)
