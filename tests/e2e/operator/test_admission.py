"""Injection and eviction by the webhooks of the chart, with the rights of the chart's roles."""

import base64
import http.server
import itertools
import json
import re
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sidecar.cluster.api import ApiError
from tests.e2e.operator.api_server import ApiServer, Object
from tests.e2e.operator.deployed import deploy
from tests.e2e.operator.shop import Replica, Shop
from tests.support.procs import LOOPBACK
from tests.support.tls import Authority

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture
def other(shop: Shop) -> str:
    """A namespace besides the operator's, with an Election in it."""
    name = f"{shop.namespace}-o"[-60:].strip("-")
    shop.server.must_apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {**shop.election(), "metadata": {"name": "master", "namespace": name}},
    )
    return name


@pytest.fixture
def replica(shop: Shop, other: str) -> Iterator[Replica]:
    """One replica in namespaced mode, which looks after both namespaces."""
    yield deploy(shop, f"operator.namespaces[0]={other}")
    leave(shop.server)


def leave(server: ApiServer) -> None:
    """Take the webhooks away, which would be asked for the next tests' pods, too."""
    for kind in ("mutating", "validating"):
        server.kubectl("delete", f"{kind}webhookconfigurations", "--all")


def create(shop: Shop, namespace: str, name: str, **metadata: Any) -> Object:
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    }
    done = shop.server.kubectl("create", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    found = shop.server.admin.get(f"/api/v1/namespaces/{namespace}/pods/{name}")
    return {**found, "said": done.stderr}


def sidecars(pod: Object) -> int:
    containers = pod["spec"].get("initContainers", [])
    return [c["name"] for c in containers].count("leader-sidecar")


ASKS = {"leader-sidecar.io/inject": "true"}
NAMES = {"leader-sidecar.io/election": "master"}


def test_pods_that_ask_get_a_sidecar_and_their_labels_from_the_operator(
    shop: Shop, other: str, replica: Replica
) -> None:
    pod = create(shop, other, "web-0", labels=ASKS, annotations=NAMES)
    assert sidecars(pod) == 1
    mounts = pod["spec"]["containers"][0]["volumeMounts"]
    assert {
        "name": "leader-sidecar",
        "mountPath": "/run/leader-sidecar",
        "readOnly": True,
    } in mounts
    assert sidecars(create(shop, other, "web-1")) == 0
    unnamed = create(shop, other, "web-2", labels=ASKS)
    assert sidecars(unnamed) == 0
    assert "names no Election" in unnamed["said"]
    missing = {"leader-sidecar.io/election": "nobody"}
    assert (
        "there is no Election nobody"
        in create(shop, other, "web-3", labels=ASKS, annotations=missing)["said"]
    )
    shop.candidates("web-0")

    def role() -> object:
        found = shop.server.admin.get(f"/api/v1/namespaces/{other}/pods/web-0")
        return found["metadata"]["labels"].get("leader-sidecar.io/role")

    shop.until(lambda: role() == "leader", "the operator labels it")
    assert replica.metric("leader_sidecar_operator_repairs_total") == 0


class LateWebhook(http.server.BaseHTTPRequestHandler):
    """Adds a container to every pod, as the sidecars of a mesh are."""

    def do_POST(self) -> None:
        """Answer an AdmissionReview."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["request"]
        added = {"op": "add", "path": "/spec/containers/-", "value": {"name": "late", "image": "x"}}
        operations = [added] if len(asked["object"]["spec"]["containers"]) == 1 else []
        response = {
            "uid": asked["uid"],
            "allowed": True,
            "patchType": "JSONPatch",
            "patch": base64.b64encode(json.dumps(operations).encode()).decode(),
        }
        review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}
        body = json.dumps({**review, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def late(shop: Shop, tmp_path: Path) -> Iterator[None]:
    """A webhook that is called after the operator's."""
    authority = Authority(tmp_path, "late-ca")
    pair = authority.issue("late", common_name="late", hosts=[LOOPBACK])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), LateWebhook) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        bundle = base64.b64encode(authority.cert.read_bytes()).decode()
        url = f"https://{LOOPBACK}:{server.server_address[1]}/"
        shop.server.must_apply(
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingWebhookConfiguration",
                "metadata": {"name": "z-late"},  # they are called in the order of their names
                "webhooks": [
                    {
                        "name": "late.example.com",
                        "admissionReviewVersions": ["v1"],
                        "sideEffects": "None",
                        "clientConfig": {"url": url, "caBundle": bundle},
                        "rules": [
                            {
                                "apiGroups": [""],
                                "apiVersions": ["v1"],
                                "operations": ["CREATE"],
                                "resources": ["pods"],
                            }
                        ],
                    }
                ],
            }
        )
        try:
            yield
        finally:
            leave(shop.server)
            server.shutdown()
            thread.join()


@pytest.mark.usefixtures("replica", "late")
def test_a_container_of_a_later_webhook_gets_the_status_directory(shop: Shop, other: str) -> None:
    number = itertools.count()
    found: list[Object] = []

    def is_late() -> bool:
        name = f"web-{next(number)}"
        found.append(create(shop, other, name, labels=ASKS, annotations=NAMES))
        return len(found[-1]["spec"]["containers"]) == 2

    shop.until(is_late, "the later webhook is heard of")
    assert sidecars(found[-1]) == 1
    for container in found[-1]["spec"]["containers"]:
        mounts = [m["name"] for m in container["volumeMounts"]]
        assert mounts.count("leader-sidecar") == 1, container["name"]
    assert found[-1]["spec"]["terminationGracePeriodSeconds"] == 30 + 5


def test_a_namespace_may_ask_for_its_pods_and_a_pod_may_refuse(
    shop: Shop, other: str, replica: Replica
) -> None:
    number = itertools.count()
    shop.server.admin.merge(f"/api/v1/namespaces/{other}", {"metadata": {"labels": ASKS}})
    shop.until(
        lambda: sidecars(create(shop, other, f"x-{next(number)}", annotations=NAMES)) == 1,
        "the namespace's label is heard",
    )
    refuses = {"leader-sidecar.io/inject": "false"}
    assert sidecars(create(shop, other, "web-1", labels=refuses, annotations=NAMES)) == 0


def test_pods_start_while_no_replica_answers(shop: Shop, other: str, replica: Replica) -> None:
    replica.child.kill()
    assert sidecars(create(shop, other, "web-0", labels=ASKS, annotations=NAMES)) == 0
    # An alert of the chart asks for this.
    said = {'name="pod.inject.leader-sidecar.io"', 'type="admit"'}
    assert said in labels(shop.server, "apiserver_admission_webhook_fail_open_count")


def test_with_failure_policy_fail_pods_do_not_start_then(
    shop: Shop, other: str, replica: Replica
) -> None:
    replica.child.kill()
    kind, name = "mutatingwebhookconfigurations", f"leader-sidecar-{shop.namespace}-demo-operator"
    change = [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]
    done = shop.server.kubectl("patch", kind, name, "--type=json", "-p", json.dumps(change))
    assert done.returncode == 0, done.stderr
    number = itertools.count()

    def is_refused() -> bool:
        try:
            create(shop, other, f"web-{next(number)}", labels=ASKS, annotations=NAMES)
        except AssertionError as exc:
            return "failed calling webhook" in str(exc)
        return False

    shop.until(is_refused, "the change is heard")
    # An alert of the chart asks for this.
    said = {'name="pod.inject.leader-sidecar.io"', 'error_type="calling_webhook_error"'}
    counted = labels(shop.server, "apiserver_admission_webhook_rejection_count")
    assert any(said <= each for each in counted)


def labels(server: ApiServer, metric: str) -> list[set[str]]:
    """The labels of each series of one of the API server's metrics."""
    done = server.kubectl("get", "--raw", "/metrics")
    assert done.returncode == 0, done.stderr
    found = re.findall(rf"^{metric}{{([^}}]*)}} ", done.stdout, re.MULTILINE)
    return [set(each.split(",")) for each in found]


def evict(shop: Shop, name: str, *, dry_run: bool = False) -> int:
    """Evict a pod and return the status."""
    body: Object = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": shop.namespace},
    }
    if dry_run:
        body["deleteOptions"] = {"dryRun": ["All"]}
    try:
        shop.server.admin.create(f"{shop.path(name)}/eviction", body)
    except ApiError as exc:
        return exc.status
    return 201


@pytest.fixture
def two(shop: Shop, replica: Replica) -> Shop:
    """Two pods that stand; m-0 leads."""
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make()
    shop.candidates("m-0", "m-1", options=("--ttl=30s",))
    shop.wait_for_leader("m-0")
    return shop


def test_a_leader_has_handed_over_when_its_eviction_is_answered(
    two: Shop, replica: Replica
) -> None:
    assert evict(two, "m-0", dry_run=True) == 201
    assert two.team.members["m-0"].leadership.is_leader()
    assert evict(two, "m-0") == 201
    assert not two.team.members["m-0"].leadership.is_leader()
    two.team.members["m-1"].wait_for("leader")
    move = two.status["move"]
    assert (move["reason"], move["to"], move["result"]) == ("Eviction", "m-1", "Done")
    admissions = "leader_sidecar_operator_admissions_total"
    assert replica.metric(admissions, webhook="evict", result="moved") == 1
    assert replica.metric(admissions, webhook="evict", result="nothing") == 1
    assert replica.metric(admissions, webhook="evict", result="failed") == 0


def test_the_move_before_an_eviction_stays_in_the_status(two: Shop) -> None:
    assert evict(two, "m-0", dry_run=True) == 201
    assert "move" not in two.status
    assert evict(two, "m-0") == 201
    two.wait_for_leader("m-1")
    before = two.status["move"]
    two.team.command("handover", "--to", "m-0")
    two.wait_for_leader("m-0")  # written by the replica that works, and not by the one asked
    assert two.status["move"] == before


def test_a_follower_is_evicted_without_a_word(two: Shop, replica: Replica) -> None:
    assert evict(two, "m-1") == 201
    assert two.team.members["m-0"].leadership.is_leader()


def test_a_budget_that_refuses_the_eviction_keeps_the_leader_where_it_is(two: Shop) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "master", "namespace": two.namespace},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "master"}}},
    }
    two.server.must_apply(budget)
    path = f"/apis/policy/v1/namespaces/{two.namespace}/poddisruptionbudgets/master"
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 2,
        "desiredHealthy": 2,
        "expectedPods": 2,
    }
    two.server.admin.merge(f"{path}/status", {"status": status})
    assert evict(two, "m-0") == 429
    assert two.team.members["m-0"].leadership.is_leader()


def test_an_eviction_is_not_held_when_the_leader_does_not_answer(
    two: Shop, replica: Replica
) -> None:
    two.team.members["m-0"].child.pause()
    began = time.monotonic()
    assert evict(two, "m-0") == 201
    # The API server itself goes on after 5 s.
    assert time.monotonic() - began < 4.5
    two.team.members["m-0"].child.resume()
    assert replica.metric("leader_sidecar_operator_admissions_total", result="not_moved") == 1


def test_a_replica_that_is_told_to_stop_answers_while_the_service_leads_to_it(
    two: Shop, replica: Replica
) -> None:
    replica.child.signal(signal.SIGTERM)
    replica.child.wait_for_line("stopping signal=SIGTERM", stream="err")
    assert evict(two, "m-0") == 201
    assert not two.team.members["m-0"].leadership.is_leader()
    assert replica.child.wait() == 0


def test_in_cluster_mode_the_chart_gives_all_rights_that_are_needed(shop: Shop, other: str) -> None:
    try:
        replica = deploy(shop, "operator.scope=cluster")
        shop.node(shop.namespace[-30:].strip("-"))
        shop.pod("m-0", node=shop.namespace[-30:].strip("-"))
        shop.pod("m-1")
        shop.make(service={"ports": [{"name": "http", "port": 80}]})
        shop.candidates("m-0", "m-1")
        shop.until(lambda: shop.role("m-0") == "leader", "labelled")
        assert evict(shop, "m-0") == 201
        shop.wait_for_leader("m-1")
        shop.until(lambda: "LeaderChanged" in shop.reasons(), "it is told")
        denied = "leader_sidecar_operator_api_requests_total"
        assert replica.metric(denied, code="403") == 0
        assert "403" not in replica.child.text("err")
        assert "orbidden" not in replica.child.text("err")
    finally:
        leave(shop.server)


def test_a_drain_of_several_nodes_changes_the_leader_once(shop: Shop) -> None:
    nodes = [f"{shop.namespace[-20:].strip('-')}-{n}" for n in range(8)]
    names = [f"m-{n}" for n in range(8)]
    try:
        deploy(shop, "operator.scope=cluster")
        for name, node in zip(names, nodes, strict=True):
            shop.node(node)
            shop.pod(name, node=node)
        shop.make()
        shop.candidates(*names)
        shop.until(lambda: shop.role("m-0") == "leader", "labelled")
        # All are cordoned first, one after the other, and then emptied in the same order.
        options = ("--force", "--ignore-daemonsets", "--grace-period=0")
        done = shop.server.kubectl("drain", *nodes[:-1], *options)
        assert done.returncode == 0, done.stderr
        shop.wait_for_leader(names[-1])
        assert shop.status["transitions"] == 2
    finally:
        leave(shop.server)
