"""Which pod is a candidate's: never the successor of one whose key still stands."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.operator.facts import Pod, read_pod, read_time
from sidecar.operator.view import View, pods_of
from tests.operator.things import (
    NOW,
    entry,
    following,
    leading,
    pod,
    pod_document,
    queue,
    term,
    view,
)


def found(seen: View, *pods: Pod) -> list[str]:
    """The pods of the queue in its order; "" for none."""
    there = pods_of(seen, pods)
    return [there[e.key].name if e.key in there else "" for e in seen.entries]


def alone(address: str, **said: Any) -> View:
    return view(entry("m-0", 10, address=address), **said)


def test_a_candidate_that_says_no_address_is_the_pod_of_its_id() -> None:
    assert found(queue("m-0", "m-1"), pod("m-1"), pod("m-0")) == ["m-0", "m-1"]


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.1:9090"])
def test_a_pod_made_anew_at_another_address_is_not_its_predecessor(address: str) -> None:
    assert found(alone(address), pod("m-0")) == ["m-0"]
    assert found(alone(address), pod("m-0", address="10.0.0.9")) == [""]


def test_a_pod_that_has_no_address_yet_is_not_its_predecessor() -> None:
    assert found(alone("10.0.0.1"), pod("m-0", address="")) == [""]


def test_who_got_the_address_of_another_pod_is_not_that_pod() -> None:
    old, own = entry("m-0", 10, address="10.0.0.1"), entry("m-1", 11, address="10.0.0.1")
    reused = pod("m-1", address="10.0.0.1")
    assert found(view(old), pod("m-0", address="10.0.0.9"), reused) == [""]
    assert found(view(old, own), reused) == ["", "m-1"]


def test_a_pod_made_anew_at_the_same_address_is_not_whose_term_had_begun_before() -> None:
    seen = alone("10.0.0.1", history=(term(10, "m-0", NOW),))
    same = pod("m-0")
    assert found(seen, same) == ["m-0"]  # nobody says when it was started
    assert found(seen, replace(same, started_at=NOW)) == ["m-0"]
    assert found(seen, replace(same, started_at=NOW + 1)) == [""]
    assert found(alone("", history=seen.history), replace(same, started_at=NOW + 1)) == [""]


def test_an_address_of_its_node_is_the_pods_too() -> None:
    document = pod_document("m-0")
    document["status"]["hostIPs"] = [{"ip": "192.168.7.1"}, {"ip": "fd00::7"}]
    for address in ("192.168.7.1:8080", "[fd00:0::7]:8080"):
        assert found(alone(address), read_pod(document)) == ["m-0"]
    assert found(alone("192.168.7.2:8080"), read_pod(document)) == [""]
    del document["status"]["hostIPs"]  # an older kubelet
    document["status"]["hostIP"] = "192.168.7.1"
    assert found(alone("192.168.7.1"), read_pod(document)) == ["m-0"]


def test_a_host_name_may_lead_anywhere_so_the_id_counts() -> None:
    assert found(alone("m-0.master.shop.svc:8080"), pod("m-0", address="10.0.0.9")) == ["m-0"]


@pytest.mark.parametrize("address", ["FD00:0:0::1", "[fd00::1]:8080", "::ffff:10.0.0.1"])
def test_an_address_is_the_same_however_it_is_spelled(address: str) -> None:
    document = pod_document("m-0")
    document["status"]["podIPs"] = [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]
    assert found(alone(address), read_pod(document)) == ["m-0"]


@pytest.mark.parametrize("address", ["", "m-0.master", "10.0.0.1"])
def test_of_two_keys_of_one_id_the_pod_is_the_younger_ones(address: str) -> None:
    """A successor in its node's network, or behind a host name, that stands already."""
    twice = view(entry("m-0", 10, address=address), entry("m-0", 12, address=address))
    assert found(twice, pod("m-0")) == ["", "m-0"]


def test_of_two_keys_of_one_id_the_pod_is_the_one_at_its_address() -> None:
    twice = view(entry("m-0", 10, address="10.0.0.1"), entry("m-0", 12, address="10.0.0.2"))
    assert found(twice, pod("m-0"), pod("m-1")) == ["m-0", ""]
    assert found(twice, pod("m-0", address="10.0.0.2")) == ["", "m-0"]


def test_an_id_that_is_no_pods_name_is_the_pod_at_its_address() -> None:
    seen = view(entry("first", 10, address="10.0.0.1:80"), entry("second", 11, address="10.0.0.2"))
    assert found(seen, pod("m-0"), pod("m-1")) == ["m-0", "m-1"]


def test_pods_that_share_an_address_are_not_guessed_between() -> None:
    seen = view(entry("first", 10, address="10.0.0.1"))
    other = pod("m-1", address="10.0.0.1")
    assert found(seen, pod("m-0"), other) == [""]
    assert found(seen, replace(pod("m-0"), has_ended=True), other) == ["m-1"]


def test_a_pod_that_shows_this_very_term_is_its_leader_wherever_it_says_to_be() -> None:
    """Its own sidecar wrote that, or we did; a pod made anew shows nothing, or another term."""
    seen = alone("203.0.113.5", history=(term(10, "m-0", NOW),))
    assert found(seen, replace(leading("m-0", 10), started_at=NOW + 5)) == ["m-0"]
    for other in (leading("m-0", 9), following("m-0", 10), leading("m-1", 10)):
        assert found(seen, other) == [""]


def test_times_are_read_and_what_is_none_is_unknown() -> None:
    assert read_time("1970-01-01T00:01:00Z") == 60.0
    for wrong in (None, "", "yesterday", "2026-11-21", "2026-11-21T04:50:11"):
        assert read_time(wrong) == 0.0
