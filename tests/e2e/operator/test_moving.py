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
    three.until(lambda: three.reasons().count("HandoverDone") == 1, "by an Event, too")


def test_a_cordon_with_nobody_left_to_lead_is_told_and_not_tried_all_the_time(
    three: Shop,
) -> None:
    for name in ("m-0", "m-1", "m-2"):
        close(three, name)
    three.make()
    replica = three.operator("op-0", "--namespaces=")
    three.until(lambda: "HandoverRefused" in three.reasons(), "it is told")
    assert three.status["leader"]["id"] == "m-0"
    assert three.team.command("handover", "--to", "m-1").returncode == 0
    three.wait_for_leader("m-1")
    # Again 5 s later at the soonest, or for another term.
    assert replica.metric("leader_sidecar_operator_moves_total", reason="NodeCordoned") <= 6


def test_the_annotation_hands_over_and_is_taken_off(three: Shop) -> None:
    three.make()
    three.operator()
    three.wait_for_leader("m-0")
    token = three.status["token"]
    done = three.server.kubectl("annotate", "elect", "master", f"{TO}=m-2", "-n", three.namespace)
    assert done.returncode == 0, done.stderr
    three.wait_for_leader("m-2")

    def is_off() -> bool:
        found = three.server.admin.get(three.election_path)["metadata"]
        return TO not in (found.get("annotations") or {})

    three.until(is_off, "the annotation is taken off")
    three.until(lambda: three.status.get("move", {}).get("result") == "Done", "it is told")
    move = three.status["move"]
    assert (move["reason"], move["token"], move["to"]) == ("HandoverTo", token, "m-2")
    three.until(lambda: three.reasons().count("HandoverDone") == 1, "by an Event, too")


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

    def shown() -> tuple[str, bool]:
        found = three.server.admin.get(f"{slices}/master-leader-ipv4")
        (endpoint,) = found["endpoints"]
        return str(endpoint["targetRef"]["name"]), bool(endpoint["conditions"]["ready"])

    three.until(lambda: shown() == ("m-0", True), "the slice shows the leader")
    before = three.server.admin.get(f"{slices}/master-leader-ipv4")["metadata"]["generation"]
    three.team.command("handover", "--to", "m-1")
    assert three.until(lambda: shown() == ("m-1", True), "the slice follows") < 5.0
    found = three.server.admin.get(f"{slices}/master-leader-ipv4")
    assert found["metadata"]["generation"] == before + 1
    assert found["metadata"]["annotations"]["leader-sidecar.io/term"] == str(three.status["token"])
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    service = three.server.admin.get(f"/api/v1/namespaces/{three.namespace}/services/master-leader")
    assert "selector" not in service["spec"]
    for name in ("m-0", "m-1", "m-2"):
        three.team.members[name].kill()
    three.until(lambda: not shown()[1], "while nobody leads nobody is led to")


def test_somebody_elses_service_is_left_alone_and_told(three: Shop) -> None:
    path = f"/api/v1/namespaces/{three.namespace}/services"
    ports = [{"name": "http", "port": 80}]
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "master-leader"}}
    three.server.admin.create(path, {**body, "spec": {"selector": {"app": "x"}, "ports": ports}})
    three.make(service={"ports": ports})
    three.operator()
    three.until(lambda: three.status.get("health") == "ServiceAstray", "it is told")
    assert three.condition("ServiceFollows") == ("False", "Refused")
    assert "Service master-leader is there" in str(three.status["conditions"])
    assert three.server.admin.get(f"{path}/master-leader")["spec"]["selector"] == {"app": "x"}
    # Nothing else stands still for it.
    three.wait_for_leader("m-0")
    three.wait_for_label("m-0")
    three.server.admin.delete(f"{path}/master-leader", {})
    three.until(lambda: three.status["health"] == "Healthy", "the name is free", 60)
    assert three.condition("ServiceFollows") == ("True", "Written")


def test_a_service_that_is_named_no_more_leads_to_nobody(three: Shop) -> None:
    ports = [{"name": "http", "port": 80}]
    three.make(service={"name": "first", "ports": ports})
    replica = three.operator()
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{three.namespace}/endpointslices"

    def shown(service: str) -> int:
        found = three.server.admin.get(f"{slices}/{service}-ipv4")
        return len(found.get("endpoints") or [])

    three.until(lambda: shown("first") == 1, "the first leads to the leader")
    three.until(lambda: three.status.get("service") == "first", "it is noted")
    replica.child.kill()  # who begins anew has to know of the first one
    three.server.admin.merge(three.election_path, {"spec": {"service": {"name": "second"}}})
    replica.start()
    three.until(lambda: shown("second") == 1, "the second leads to the leader")
    assert shown("first") == 0
    three.server.admin.merge(three.election_path, {"spec": {"service": None}})
    three.until(lambda: shown("second") == 0, "without a Service none leads anywhere")
    three.until(lambda: "service" not in three.status, "it is noted")
    three.server.admin.merge(three.election_path, {"spec": {"service": {"ports": ports}}})
    three.until(lambda: shown("master-leader") == 1, "a third one")
    three.until(lambda: three.status.get("service") == "master-leader", "it is noted")


def test_what_is_refused_stands_in_the_way_of_nothing_else(three: Shop) -> None:
    """The right to write Services, and that to write one pod, are withheld."""
    three.grant(
        {"apiGroups": ["leader-sidecar.io"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {
            "apiGroups": [""],
            "resources": ["pods"],
            "resourceNames": ["m-1", "m-2"],
            "verbs": ["patch"],
        },
    )
    three.make(service={"ports": [{"name": "http", "port": 80}]})
    three.operator()
    three.until(lambda: three.role("m-2") == "follower", "labelled")
    three.until(lambda: three.role("m-1") == "follower", "labelled")
    three.until(lambda: three.status.get("health") == "LabelsDiffer", "it is told")
    assert three.condition("ServiceFollows") == ("False", "Refused")
    assert three.status["leader"]["id"] == "m-0"
    three.server.kubectl("annotate", "elect", "master", f"{TO}=m-2", "-n", three.namespace)
    three.wait_for_leader("m-2")
    three.wait_for_label("m-2")


def test_a_pod_made_anew_is_not_its_predecessor_that_leads_on(shop: Shop) -> None:
    """The node of m-0 is cut off from the API server alone, and its pod is made anew elsewhere."""
    for n in range(2):
        shop.pod(f"m-{n}")
    at = [f"--advertise=10.0.0.{n + 1}:9090" for n in range(2)]
    shop.team.launch(*(shop.team.add(f"m-{n}", "--label=false", at[n]) for n in range(2)))
    shop.make(service={"ports": [{"name": "http", "port": 80}]})
    shop.operator()
    shop.wait_for_label("m-0")
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices"

    def is_ready() -> bool:
        (found,) = shop.server.admin.get(f"{slices}/master-leader-ipv4")["endpoints"]
        return bool(found["conditions"]["ready"])

    shop.until(is_ready, "the Service leads to m-0")
    shop.server.admin.delete(shop.path("m-0"), {"gracePeriodSeconds": 0})
    shop.pod("m-0", labels={"app": "master", "leader-sidecar.io/role": "boss"})
    # What its label says is put right, so it was looked at.
    shop.until(lambda: shop.role("m-0") == "follower", "it is no leader")
    shop.until(lambda: "pod" not in shop.status["leader"], "nobody's pod leads")
    assert shop.status["leader"]["id"] == "m-0"
    assert not is_ready()
    shop.team.command("handover", "--to", "m-1")
    shop.wait_for_label("m-1")
    shop.until(is_ready, "the Service leads to m-1")
