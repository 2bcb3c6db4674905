"""The Service without selector, and whom its slice shows."""

from sidecar.operator.slices import (
    agrees,
    families_of,
    is_ours,
    service_of,
    shown_term,
    slice_of,
)
from sidecar.operator.view import View
from tests.operator.things import Document, election, pod, queue, view

SAID = {"ports": [{"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "h2c"}]}
PODS = [pod("m-0", node="node-a"), pod("m-1", address="fd00::2")]


def shown(seen: View, family: int = 4) -> Document:
    of = election(service=SAID)
    assert of.service is not None
    return slice_of(of, of.service, seen, PODS, uid="uid-of-service", family=family)


def test_the_slice_shows_the_leaders_pod_with_numeric_ports_of_the_services_names() -> None:
    found = shown(queue("m-0", "m-1"))
    (endpoint,) = found["endpoints"]
    assert endpoint["addresses"] == ["10.0.0.1"]
    assert endpoint["conditions"]["ready"] is True
    assert (endpoint["nodeName"], endpoint["targetRef"]["uid"]) == ("node-a", "uid-of-m-0")
    assert found["ports"] == [
        {"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "h2c"}
    ]
    assert shown_term(found) == 10
    labels = found["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == "master-leader"
    assert labels["endpointslice.kubernetes.io/managed-by"] == "leader-sidecar-operator"
    assert found["metadata"]["ownerReferences"][0]["kind"] == "Service"


def test_each_family_has_a_slice_of_its_own() -> None:
    assert shown(queue("m-1"))["endpoints"] == []
    six = shown(queue("m-1"), family=6)
    assert (six["addressType"], six["endpoints"][0]["addresses"]) == ("IPv6", ["fd00::2"])
    assert six["metadata"]["name"] != shown(queue("m-1"))["metadata"]["name"]


def test_a_service_has_slices_of_the_families_that_it_has_in_the_cluster() -> None:
    assert families_of({"spec": {"ipFamilies": ["IPv4", "IPv6"]}}) == [4, 6]
    assert families_of({"spec": {"ipFamilies": ["IPv6", "IPv4"]}}) == [4, 6]
    assert families_of({"spec": {"ipFamilies": ["IPv6"]}}) == [6]
    assert families_of({"spec": {}}) == [4]


def test_nobody_is_shown_while_nobody_leads_or_the_leaders_pod_is_gone() -> None:
    for seen in (view(), queue("m-0", is_paused=True), queue("m-9")):
        assert shown(seen)["endpoints"] == []


def test_a_leader_whose_pod_is_about_to_go_is_shown_as_not_ready() -> None:
    going = pod("m-0", deletionTimestamp="2026-11-21T04:50:11Z")
    of = election(service=SAID)
    assert of.service is not None
    found = slice_of(of, of.service, queue("m-0"), [going], uid="uid-of-service", family=4)
    (endpoint,) = found["endpoints"]
    assert endpoint["conditions"] == {"ready": False, "serving": False, "terminating": True}


def test_a_slice_that_shows_the_term_and_its_leader_is_not_written_again() -> None:
    there = shown(queue("m-0"))
    assert agrees(there, shown(queue("m-0", "m-1")))
    assert not agrees(there, shown(queue("m-0", first=20)))
    assert not agrees(there, shown(view()))


def test_the_service_has_no_selector_and_goes_with_its_election() -> None:
    of = election(service=SAID)
    assert of.service is not None
    made = service_of(of, of.service)
    assert "selector" not in made["spec"]
    assert is_ours(made, of)
    assert not is_ours({"metadata": {}}, of)
