"""Planned moves and commands by kubectl, on a real API server."""

import pytest

from tests.e2e.operator.shop import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

TO = "leader-sidecar.io/handover-to"


@pytest.fixture
def three(shop: Shop) -> Shop:
    """Three pods on three nodes, with sidecars; m-0 leads."""
    for n in range(3):
        node = f"{shop.namespace[-20:].strip('-')}-{n}"
        shop.node(node)
        shop.pod(f"m-{n}", node=node)
    shop.candidates("m-0", "m-1", "m-2")
    return shop


def node_of(shop: Shop, pod: str) -> str:
    return str(shop.server.admin.get(shop.path(pod))["spec"]["nodeName"])


def close(shop: Shop, pod: str) -> None:
    path = f"/api/v1/nodes/{node_of(shop, pod)}"
    shop.server.admin.merge(path, {"spec": {"unschedulable": True}})


def test_a_cordon_moves_the_leader_once_past_nodes_that_are_cordoned_too(three: Shop) -> None:
    three.make()
    three.operator("op-0", "--namespaces=")
    three.wait_for_leader("m-0")
    close(three, "m-1")
    close(three, "m-0")
    three.wait_for_leader("m-2")
    assert three.status["transitions"] == 2
    three.until(lambda: "move" in three.status, "it is told")
    move = three.status["move"]
    assert (move["reason"], move["to"], move["result"]) == ("NodeCordoned", "m-2", "Done")
    assert three.reasons().count("HandoverDone") == 1


def test_a_cordon_with_nobody_left_to_lead_is_told_and_not_tried_all_the_time(
    three: Shop,
) -> None:
    for name in ("m-0", "m-1", "m-2"):
        close(three, name)
    three.make()
    three.operator("op-0", "--namespaces=")
    three.until(lambda: "HandoverRefused" in three.reasons(), "it is told")
    assert three.status["leader"]["id"] == "m-0"


def test_the_annotation_hands_over_and_is_taken_off(three: Shop) -> None:
    three.make()
    three.operator()
    three.wait_for_leader("m-0")
    done = three.server.kubectl("annotate", "elect", "master", f"{TO}=m-2", "-n", three.namespace)
    assert done.returncode == 0, done.stderr
    three.wait_for_leader("m-2")

    def is_off() -> bool:
        found = three.server.admin.get(three.election_path)["metadata"]
        return TO not in (found.get("annotations") or {})

    token = three.status["history"][1]["token"]
    three.until(is_off, "the annotation is taken off")
    three.until(lambda: three.status.get("move", {}).get("result") == "Done", "it is told")
    move = three.status["move"]
    assert (move["reason"], move["token"], move["to"]) == ("HandoverTo", token, "m-2")
    assert three.reasons().count("HandoverDone") == 1


def test_an_annotation_that_names_nobody_is_refused_with_the_reason(three: Shop) -> None:
    three.make()
    three.operator()
    three.wait_for_leader("m-0")
    three.server.kubectl("annotate", "elect", "master", f"{TO}=m-9", "-n", three.namespace)
    three.until(lambda: three.status.get("move", {}).get("result") == "Refused", "it is told")
    assert "no candidate 'm-9' stands" in three.status["move"]["message"]
    assert three.status["leader"]["id"] == "m-0"


def test_the_preferred_candidate_leads_once_it_has_stood_for_a_while(three: Shop) -> None:
    three.make(preferred={"candidate": "m-2"})
    three.operator()
    three.wait_for_leader("m-2")
    assert three.status["transitions"] == 2


def test_spec_paused_pauses_and_resumes(three: Shop) -> None:
    three.make()
    three.operator()
    three.until(lambda: three.role("m-0") == "leader", "labelled")
    three.server.admin.merge(three.election_path, {"spec": {"paused": True}})
    three.until(lambda: three.condition("Paused") == ("True", "PausedBySpec"), "paused")
    three.until(lambda: three.status["health"] == "Paused", "it shows")
    three.until(lambda: three.role("m-0") == "follower", "nobody is labelled leader")
    assert "leader" not in three.status
    three.server.admin.merge(three.election_path, {"spec": {"paused": False}})
    three.until(lambda: three.condition("LeaderPresent")[0] == "True", "somebody leads again")
    assert three.condition("Paused") == ("False", "Running")


def test_a_pause_of_somebody_else_is_shown_and_left_alone(three: Shop) -> None:
    three.make()
    three.operator()
    three.wait_for_leader("m-0")
    assert three.team.command("pause").returncode == 0
    three.until(lambda: three.condition("Paused") == ("True", "PausedElsewhere"), "it is shown")
    three.server.admin.merge(three.election_path, {"spec": {"paused": False}})
    assert three.team.command("resume").returncode == 0
    three.until(lambda: three.condition("LeaderPresent")[0] == "True", "somebody leads again")


def test_the_service_follows_the_leader_by_one_write(three: Shop) -> None:
    three.make(service={"ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    three.operator()
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{three.namespace}/endpointslices"

    def shown() -> str:
        found = three.server.admin.get(f"{slices}/master-leader-ipv4")
        (endpoint,) = found["endpoints"]
        assert endpoint["conditions"]["ready"]
        return str(endpoint["targetRef"]["name"])

    three.until(lambda: shown() == "m-0", "the slice shows the leader")
    before = three.server.admin.get(f"{slices}/master-leader-ipv4")["metadata"]["generation"]
    three.team.command("handover", "--to", "m-1")
    assert three.until(lambda: shown() == "m-1", "the slice follows") < 1.0
    found = three.server.admin.get(f"{slices}/master-leader-ipv4")
    assert found["metadata"]["generation"] == before + 1
    assert found["metadata"]["annotations"]["leader-sidecar.io/term"] == str(three.status["token"])
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    service = three.server.admin.get(f"/api/v1/namespaces/{three.namespace}/services/master-leader")
    assert "selector" not in service["spec"]
    for name in ("m-0", "m-1", "m-2"):
        three.team.members[name].kill()
    three.until(
        lambda: not three.server.admin.get(f"{slices}/master-leader-ipv4").get("endpoints"),
        "the slice shows nobody",
    )


def test_somebody_elses_service_is_left_alone_and_told(three: Shop) -> None:
    path = f"/api/v1/namespaces/{three.namespace}/services"
    ports = [{"name": "http", "port": 80}]
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "master-leader"}}
    three.server.admin.create(path, {**body, "spec": {"selector": {"app": "x"}, "ports": ports}})
    three.make(service={"ports": ports})
    three.operator()
    three.until(lambda: three.status.get("health") == "Invalid", "it is told")
    assert "master-leader" in str(three.status["conditions"])
    assert three.server.admin.get(f"{path}/master-leader")["spec"]["selector"] == {"app": "x"}
