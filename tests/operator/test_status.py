"""The status that an Election gets, and what is written when it changes."""

from types import SimpleNamespace
from typing import Any, cast

from sidecar.core.queue import QueueReplica
from sidecar.operator.status import Astray, Seen, change, stamp, status_of
from sidecar.operator.view import View, look
from tests.operator.things import NOW, election, entry, leading, queue, term, view

PODS = [leading("m-0", 10, node="node-a"), leading("m-1", 11, node="node-b")]


def status(seen: View, now: float = NOW, *, old: dict[str, Any] | None = None, **said: Any) -> Any:
    of = election(status=old or {}, **said.pop("spec", {}))
    return status_of(Seen(of, seen, PODS, **said), now)


def condition(found: Any, type_: str) -> tuple[str, str]:
    (one,) = (c for c in found["conditions"] if c["type"] == type_)
    return one["status"], one["reason"]


def test_the_leader_is_shown_with_its_pod_its_node_and_its_term() -> None:
    found = status(queue("m-0", "m-1", history=(term(10, "m-0", NOW - 60),)))
    assert found["leader"] == {"id": "m-0", "pod": "m-0", "node": "node-a"}
    assert (found["token"], found["since"]) == (10, stamp(NOW - 60))
    assert [c["id"] for c in found["candidates"]] == ["m-0", "m-1"]
    assert (found["candidateCount"], found["health"], found["observedGeneration"]) == (
        2,
        "Healthy",
        3,
    )
    assert condition(found, "LeaderPresent") == ("True", "Elected")
    assert condition(found, "SingleLeader") == ("True", "LabelsAgree")


def test_a_second_look_at_the_same_changes_nothing() -> None:
    for seen in (queue("m-0", "m-1"), queue("m-0", is_paused=True), view(), View(trouble="no")):
        first = status(seen)
        assert change(first, status(seen, NOW + 999, old=first)) == {}


def test_terms_are_counted_also_those_that_came_and_went_between_two_looks() -> None:
    first = status(queue("m-0", first=10))
    assert first["transitions"] == 1
    history = (term(30, "m-0"), term(20, "m-1"), term(10, "m-0"))
    found = status(queue("m-0", first=30, history=history), old=first)
    assert found["transitions"] == 3
    assert status(view(history=history), old=found)["transitions"] == 3
    assert (
        status(queue("m-1", first=40), old=status(view(history=history), old=found))["transitions"]
        == 4
    )


def test_who_led_last_is_kept_while_the_store_does_not_answer() -> None:
    before = found = status(queue("m-0", "m-1"))
    for seen in (queue("m-0", "m-1", trouble="watch: no answer"), View(trouble="no answer")):
        found = status(seen, NOW + 60, old=before)
        assert {name: found[name] for name in ("leader", "token", "since")} == {
            name: before[name] for name in ("leader", "token", "since")
        }
        assert found["health"] == "StoreUnreachable"
    assert condition(found, "StoreReachable") == ("False", "NoAnswer")
    assert condition(found, "LeaderPresent") == ("Unknown", "StoreUnreachable")
    other = status(queue("m-0", "m-1", trouble="read: another story"), NOW + 61, old=found)
    assert change(found, other) == {}


def test_a_pause_says_who_paused() -> None:
    paused = queue("m-0", is_paused=True)
    assert condition(status(paused), "Paused") == ("True", "PausedElsewhere")
    found = status(paused, spec={"paused": True}, paused_by_spec=True)
    assert condition(found, "Paused") == ("True", "PausedBySpec")
    assert (found["pausedBySpec"], found["health"]) == (True, "Paused")
    assert condition(status(queue("m-0"), spec={"paused": True}), "Paused") == ("False", "Pausing")


def test_labels_that_stay_wrong_are_named() -> None:
    found = status(queue("m-0", "m-1"), wrong=["m-1"])
    assert condition(found, "SingleLeader") == ("False", "LabelsDiffer")
    assert found["health"] == "LabelsDiffer"
    late = status(queue("m-0"), late=["m-1"])
    assert condition(late, "SingleLeader") == ("False", "NewerTermSeen")


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = status(queue("m-0"))
    second = status(view(), NOW + 10, old=first)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["LeaderPresent"] == stamp(NOW + 10)
    assert times["StoreReachable"] == stamp(NOW)


def test_a_long_queue_is_cut_and_counted_whole() -> None:
    found = status(view(*(entry(f"m-{n}", 10 + n) for n in range(150))))
    assert (len(found["candidates"]), found["candidateCount"]) == (100, 150)


def test_of_many_terms_the_last_ten_are_shown() -> None:
    history = {token: term(token, f"m-{token}") for token in range(10, 25)}
    replica = SimpleNamespace(
        is_synced=True, revision=100, entries=(), is_paused=False, pin=None, history=history
    )
    last = list(range(24, 14, -1))
    seen = look(cast("QueueReplica", replica), "")
    assert [record["token"] for record in status(seen)["history"]] == last
    # Also where more are known.
    whole = view(history=tuple(history[token] for token in sorted(history, reverse=True)))
    assert [record["token"] for record in status(whole)["history"]] == last


def test_candidates_are_shown_with_the_address_that_they_gave() -> None:
    queued = entry("m-0", 10, address="10.0.0.1:80"), entry("m-1", 11)
    found = status(view(*queued))
    assert found["leader"]["address"] == "10.0.0.1:80"
    assert [c.get("address") for c in found["candidates"]] == ["10.0.0.1:80", None]


def test_what_has_gone_is_taken_out_and_what_is_the_same_is_not_written() -> None:
    old = {"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "d": 4}
    new = {"a": 1, "b": {"x": 1, "y": 3}, "c": [1, 2], "e": 5}
    assert change(old, new) == {"b": {"y": 3}, "c": [1, 2], "d": None, "e": 5}


def test_an_election_that_cannot_be_followed_says_why() -> None:
    found = status(View(), problem="Secret etcd: lacks ca.crt")
    assert found["health"] == "Invalid"
    assert condition(found, "StoreReachable") == ("Unknown", "Invalid")
    assert found["conditions"][0]["message"] == "Secret etcd: lacks ca.crt"


def test_a_service_that_cannot_be_written_is_told_and_the_leader_is_shown_all_the_same() -> None:
    ports = {"service": {"ports": [{"name": "http", "port": 80}]}}
    found = status(queue("m-0"), spec=ports, service="master-leader")
    assert condition(found, "ServiceFollows") == ("True", "Written")
    assert (found["service"], found["health"]) == ("master-leader", "Healthy")
    refused = Astray("Refused", "Service a is there")
    found = status(queue("m-1", first=11), spec=ports, astray=refused, old=found)
    assert condition(found, "ServiceFollows") == ("False", "Refused")
    assert (found["leader"]["id"], found["health"]) == ("m-1", "ServiceAstray")
    assert "service" not in found
    ahead = Astray("NewerTermSeen", "shows term 2000")
    found = status(queue("m-1"), spec=ports, astray=ahead)
    assert condition(found, "ServiceFollows") == ("False", "NewerTermSeen")
    assert "ServiceFollows" not in {c["type"] for c in status(queue("m-0"))["conditions"]}
