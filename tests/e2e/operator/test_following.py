"""Status and labels follow etcd, on a real API server."""

import base64
import contextlib
import copy
import time
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from sidecar.cluster.api import ApiError
from tests.e2e.operator.api_server import election_kind
from tests.e2e.operator.shop import ROLE, TERM, Shop
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

AT_ONCE = 5.0  # seconds; a bound for a slow machine: test_scale.py measures


def test_status_and_labels_follow_every_change_of_the_leader(shop: Shop) -> None:
    for name in ("m-0", "m-1", "m-2"):
        shop.pod(name)
    shop.make()
    shop.candidates("m-0", "m-1", "m-2")
    replica = shop.operator()
    shop.wait_for_leader("m-0")
    took: list[float] = []
    for name in ("m-1", "m-2", "m-0", "m-1"):
        assert shop.team.command("handover", "--to", name).returncode == 0
        took.append(shop.wait_for_leader(name))
        shop.wait_for_label(name)
    assert max(took) < AT_ONCE
    status = shop.status
    assert status["health"] == "Healthy"
    assert status["transitions"] == 5
    assert status["candidates"][0]["id"] == "m-1"
    assert [term["id"] for term in status["history"]][:2] == ["m-1", "m-0"]
    pod = shop.server.admin.get(shop.path("m-1"))["metadata"]
    assert pod["annotations"][TERM] == str(status["token"])
    shown = shop.server.kubectl("get", "elect", "-n", shop.namespace).stdout.split()
    assert shown[:5] == ["NAME", "LEADER", "TOKEN", "CANDIDATES", "SINCE"]
    assert shown[6:10] == ["master", "m-1", str(status["token"]), "3"]
    shop.until(lambda: shop.reasons().count("LeaderChanged") == 4, "each change is told once")
    assert "ms without a leader" in next(
        e["message"] for e in shop.events if e["reason"] == "LeaderChanged"
    )
    assert replica.metric("leader_sidecar_election_token") == status["token"]


def test_at_rest_nothing_is_written_and_hardly_anything_asked(shop: Shop) -> None:
    for name in ("m-0", "m-1"):
        shop.pod(name)
    # With these it looks every five seconds whether a move is due.
    shop.make(preferred={"candidate": "m-0"}, maxTermDuration="24h")
    shop.candidates("m-0", "m-1")
    replica = shop.operator()
    shop.wait_for_leader("m-0")
    shop.until(lambda: shop.role("m-1") == "follower", "labels are right")
    shop.until(lambda: "LabelRepaired" in shop.reasons(), "repairs are told")
    requests = "leader_sidecar_operator_api_requests_total"
    quiet = 10.0
    last, since = -1.0, 0.0

    def is_at_rest() -> bool:
        nonlocal last, since
        count, now = replica.metric(requests), time.monotonic()
        if count != last:
            last, since = count, now
        return now - since > quiet

    shop.until(is_at_rest, f"no request in {quiet} s", 60)
    assert shop.status["health"] == "Healthy"


@pytest.mark.parametrize("falsified", ["leader", "nonsense", None])
def test_labels_falsified_by_hand_are_put_right(shop: Shop, falsified: str | None) -> None:
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make()
    shop.candidates("m-0", "m-1")
    replica = shop.operator()
    shop.until(lambda: (shop.role("m-0"), shop.role("m-1")) == ("leader", "follower"), "labelled")
    repairs = replica.metric("leader_sidecar_operator_repairs_total")
    shop.server.admin.merge(shop.path("m-1"), {"metadata": {"labels": {ROLE: falsified}}})
    assert shop.until(lambda: shop.role("m-1") == "follower", "put right") < AT_ONCE
    assert replica.metric("leader_sidecar_operator_repairs_total") == repairs + 1


def test_a_term_that_etcd_does_not_know_is_left_and_told(shop: Shop) -> None:
    shop.pod("m-0")
    shop.pod("m-1", annotations={TERM: str(10**15)})
    shop.server.admin.merge(shop.path("m-1"), {"metadata": {"labels": {ROLE: "leader"}}})
    shop.make()
    shop.candidates("m-0", "m-1")
    shop.operator()
    shop.until(lambda: shop.condition("SingleLeader") == ("False", "NewerTermSeen"), "it is told")
    shop.until(lambda: shop.role("m-0") == "leader", "the other one is labelled")
    assert shop.role("m-1") == "leader"


def test_a_service_that_shows_a_term_that_etcd_does_not_know_is_left_and_told(shop: Shop) -> None:
    """As after etcd was restored from a backup."""
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make(service={"ports": [{"name": "http", "port": 80}]})
    shop.candidates("m-0", "m-1")
    shop.operator()
    shop.until(lambda: shop.condition("ServiceFollows") == ("True", "Written"), "it follows")
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices"
    path = f"{slices}/master-leader-ipv4"

    def shown() -> list[str]:
        return [e["targetRef"]["name"] for e in shop.server.admin.get(path)["endpoints"]]

    assert shown() == ["m-0"]
    shop.server.admin.merge(path, {"metadata": {"annotations": {TERM: str(10**15)}}})
    assert shop.team.command("handover", "--to", "m-1").returncode == 0
    shop.until(lambda: shop.condition("ServiceFollows") == ("False", "NewerTermSeen"), "it is told")
    assert shown() == ["m-0"]
    shop.until(lambda: "ServiceAstray" in shop.reasons(), "by an Event, too")
    shop.server.admin.delete(path, {})
    shop.until(lambda: shop.condition("ServiceFollows") == ("True", "Written"), "it follows again")
    assert shown() == ["m-1"]


def test_a_leader_that_dies_with_its_node_is_labelled_follower(shop: Shop) -> None:
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make()
    shop.candidates("m-0", "m-1")
    shop.operator()
    shop.until(lambda: shop.role("m-0") == "leader", "labelled")
    shop.team.members["m-0"].kill()
    shop.wait_for_leader("m-1")
    shop.until(lambda: (shop.role("m-0"), shop.role("m-1")) == ("follower", "leader"), "put right")


def test_an_election_and_its_namespace_can_be_deleted_while_no_operator_runs(shop: Shop) -> None:
    shop.pod("m-0")
    shop.make()
    shop.candidates("m-0")
    replica = shop.operator()
    shop.wait_for_leader("m-0")
    replica.child.kill()
    found = shop.server.admin.get(shop.election_path)["metadata"]
    assert "finalizers" not in found
    assert not [key for key in found.get("annotations", {}) if "kopf" in key]
    shop.server.admin.delete(shop.election_path, {})
    assert shop.server.admin.find(shop.election_path) is None
    replica.start()
    shop.make()
    shop.wait_for_leader("m-0")
    replica.child.kill()
    namespace = f"/api/v1/namespaces/{shop.namespace}"
    with shop.server.namespace_controller():
        shop.server.admin.delete(namespace, {})
        # Pods that no kubelet runs are deleted like everything else.
        shop.server.kubectl("delete", "pods", "--all", "--force", "-n", shop.namespace)
        wait_until(lambda: shop.server.admin.find(namespace) is None, "the namespace is gone")


def test_a_status_that_somebody_else_has_written_is_put_right(shop: Shop) -> None:
    """As one that a replica sent before it lost its term, and that came late."""
    shop.pod("m-0")
    shop.make()
    shop.candidates("m-0")
    shop.operator()
    shop.wait_for_leader("m-0")
    shop.wait_for_label("m-0")
    late = {"leader": {"id": "m-9"}, "token": 1, "transitions": 0, "health": "NoLeader"}
    shop.server.admin.merge(f"{shop.election_path}/status", {"status": late})
    assert shop.wait_for_leader("m-0") < AT_ONCE
    shop.until(lambda: shop.status["health"] == "Healthy", "all of it is")
    assert shop.status["token"] != 1
    assert shop.status["transitions"] == 1


def test_an_election_without_its_etcd_says_so_and_recovers(shop: Shop) -> None:
    shop.make(etcd={"endpoints": ["http://127.0.0.1:9"]})
    shop.operator()
    shop.until(lambda: shop.status.get("health") == "StoreUnreachable", "it is told")
    assert shop.condition("StoreReachable") == ("False", "NoAnswer")
    shop.candidates("m-0")
    endpoints = {"spec": {"etcd": {"endpoints": [shop.endpoint]}}}
    shop.server.admin.merge(shop.election_path, endpoints)
    shop.wait_for_leader("m-0")
    assert shop.condition("StoreReachable") == ("True", "Answers")


@contextlib.contextmanager
def older_kind(shop: Shop) -> Iterator[None]:
    """Have the kind as it was before terms had to last for a while."""
    kind = election_kind()
    older = copy.deepcopy(kind)
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["maxTermDuration"]["x-kubernetes-validations"]
    try:
        shop.server.must_apply(older)
        yield
    finally:
        shop.server.must_apply(kind)


def is_taken(shop: Shop, spec: dict[str, str]) -> bool:
    """Whether the API server takes a change of the Election's spec."""
    try:
        shop.server.admin.merge(shop.election_path, {"spec": spec})
    except ApiError as exc:
        if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY:
            raise
        return False
    return True


def test_an_election_that_cannot_be_read_says_so_and_is_followed_again_once_it_can(
    shop: Shop,
) -> None:
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make()
    shop.candidates("m-0", "m-1")
    replica = shop.operator()
    shop.until(lambda: shop.role("m-1") == "follower", "it is followed")
    with older_kind(shop):
        shop.until(lambda: is_taken(shop, {"maxTermDuration": "59s"}), "nothing is refused")
        shop.until(lambda: shop.status["health"] == "Invalid", "it is told")
    shop.until(lambda: not is_taken(shop, {"maxTermDuration": "58s"}), "the rules are back")
    assert shop.condition("LeaderPresent") == ("Unknown", "Invalid")
    said = "spec.maxTermDuration: must be 60s or more"
    assert all(said in condition["message"] for condition in shop.status["conditions"])
    shop.until(lambda: "Invalid" in shop.reasons(), "by an Event, too")
    assert shop.status["leader"]["id"] == "m-0"  # as far as it was known
    shop.server.admin.merge(shop.path("m-1"), {"metadata": {"labels": {ROLE: "nonsense"}}})
    assert shop.team.command("handover", "--to", "m-1").returncode == 0
    shop.server.admin.merge(shop.election_path, {"spec": {"maxTermDuration": "24h"}})
    shop.wait_for_leader("m-1")
    shop.wait_for_label("m-1")
    assert shop.status["health"] == "Healthy"
    assert replica.metric("leader_sidecar_operator_elections") == 1


def test_an_election_with_a_broken_secret_takes_nothing_away_from_others(shop: Shop) -> None:
    rubbish = base64.b64encode(b"rubbish").decode()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "rubbish", "namespace": shop.namespace},
        "data": dict.fromkeys(("ca.crt", "tls.crt", "tls.key", "password"), rubbish),
    }
    etcd = {"endpoints": ["https://127.0.0.1:9"], "tlsSecret": "rubbish", "clientCertificate": True}
    broken = shop.election("broken", etcd=etcd)
    missing = shop.election("missing", etcd={**etcd, "tlsSecret": "missing"})
    shop.server.must_apply(secret, broken, missing)
    replica = shop.operator()
    base = f"/apis/leader-sidecar.io/v1alpha1/namespaces/{shop.namespace}/elections"

    def health(name: str) -> object:
        return shop.server.admin.get(f"{base}/{name}").get("status", {}).get("health")

    shop.until(lambda: health("missing") == "Invalid", "it says what is missing")
    shop.until(lambda: health("broken") in {"Invalid", "StoreUnreachable"}, "it says so")
    shop.pod("m-0")
    shop.candidates("m-0")
    shop.make()
    shop.wait_for_leader("m-0")
    assert replica.child.running
    assert replica.leads
