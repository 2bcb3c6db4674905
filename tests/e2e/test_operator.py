"""The operator where there are nodes: what kubectl shows, repairs, injection, Services."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.support.cluster import OURS
from tests.e2e.support.kubectl import Kubectl, Object
from tests.e2e.support.operator import KIND, Elect, Operator, install_kind
from tests.e2e.support.release import SIDECAR, STATUS, Leader, Release, Values, moment
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# A leader that is frozen for a moment leads on.
VALUES: Values = {
    "etcd": {"replicas": 1},
    "sidecar": {"ttl": "10s"},
    "operator": {"enabled": True, "scope": "cluster", "ttl": "5s"},
}
ROLE = "leader-sidecar.io/role"
AT_ONCE = 1.0  # seconds
WITHIN = 60.0  # seconds; a bound for a slow machine, not an expectation
QUIET = 5.0  # seconds after which kube-proxy acts upon a change at once
REPAIRS = "leader_sidecar_operator_repairs_total"


@pytest.fixture
def operator(release: Release) -> Operator:
    return Operator(release)


@pytest.fixture
def elect(release: Release) -> Elect:
    return Elect(release, release.name, release.namespace)


def role(release: Release, pod: str) -> str | None:
    """Return what a pod's label says."""
    labels: dict[str, str] = release.kubectl.get("pod", pod)["metadata"]["labels"]
    return labels.get(ROLE)


def recorded(kubectl: Kubectl, leader: str, token: int | None = None) -> Object:
    """Return a term of a leader, or its last one, once its history tells of it."""

    def found() -> Object | None:
        last: Object = json.loads(kubectl.ask_pod(leader, STATUS, "/history"))[-1]
        return last if token in (None, last["token"]) and last["leader"] == leader else None

    term = wait_until(found, f"the history tells of {leader}'s term", WITHIN)
    assert term is not None
    return term


# --- what kubectl shows -------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [10, pytest.param(100, marks=pytest.mark.long)])
def test_kubectl_shows_leader_token_and_candidates_at_once_after_each_change(
    release: Release, elect: Elect, changes: int, measured: Callable[[str], None]
) -> None:
    release.cluster.own_engine()  # whose nodes have the clock of this machine
    leader = release.settled()
    elect.shows(leader.pod, leader.token, 3)
    took: list[float] = []
    watching = ("get", "elect", release.name, "--watch", "--no-headers")
    with (
        release.kubectl.child(*watching, name=f"elect-{changes}") as shown,
        ThreadPoolExecutor(1) as pool,
    ):
        for _ in range(changes):
            to = release.followers(leader)[-1]
            seen = len(shown.lines())
            asked = pool.submit(release.command, "handover", "--to", to)

            def row(seen: int = seen, to: str = to) -> list[str]:
                rows = [line.split() for line in shown.lines()[seen:]]
                return next((row for row in rows if row[1:2] == [to] and row[3:4] == ["3"]), [])

            found = wait_until(row, f"{to} is shown, and three candidates", WITHIN)
            at = time.time()
            asked.result()
            term = recorded(release.kubectl, to, int(found[2]))
            assert term["leader"] == to
            took.append(at - moment(term["from"]))
            leader = Leader(to, term["token"])
    measured(
        f"{changes} changes: shown after p50 {statistics.median(took) * 1e3:.0f} ms, "
        f"worst {max(took) * 1e3:.0f} ms"
    )
    assert max(took) <= AT_ONCE
    assert release.settled() == leader
    elect.shows(leader.pod, leader.token, 3)


# --- repair -------------------------------------------------------------------------------------


def falsify(release: Release, pod: str, wrong: str | None, *, right: str) -> None:
    """Label a pod by hand, or take its label away, and wait until it is put right."""
    said = f"{ROLE}-" if wrong is None else f"{ROLE}={wrong}"
    release.kubectl.run("label", "pod", pod, said, "--overwrite")
    wait_until(lambda: role(release, pod) == right, f"{pod} is put right", 10)


def test_labels_falsified_by_hand_are_put_right(release: Release, operator: Operator) -> None:
    leader = release.settled()
    follower = release.followers(leader)[0]
    repairs = operator.metric(REPAIRS)
    for wrong in ("leader", "nonsense", None):
        falsify(release, follower, wrong, right="follower")
    for wrong in ("follower", "nonsense", None):
        falsify(release, leader.pod, wrong, right="leader")
    # The sidecars look after their own labels, too, but seldom.
    assert operator.metric(REPAIRS) >= repairs + 4
    assert release.settled() == leader


def test_the_label_of_a_frozen_sidecar_is_put_right(release: Release, elect: Elect) -> None:
    before = release.settled()
    with release.container(before.pod, SIDECAR).frozen():
        after = release.changed_from(before, but=before.pod)
        wait_until(lambda: role(release, before.pod) == "follower", "it is put right", 10)
        elect.shows(after.pod, after.token, 2)
    release.settled()


# --- replicas that die --------------------------------------------------------------------------


def test_a_replica_killed_in_a_handover_leaves_one_change_behind(
    release: Release, elect: Elect, operator: Operator
) -> None:
    before = release.settled()
    working = operator.working()
    to = release.followers(before)[0]
    container = operator.container(working)
    with release.container(before.pod, SIDECAR).frozen():  # it obeys when it runs again
        elect.annotate(to)
        asked = f"handover election={release.name} reason=HandoverTo to={to}"
        logs = ("logs", working, "--since=60s")
        wait_until(lambda: asked in release.kubectl.run(*logs), asked)
        container.kill()
    after = release.changed_from(before)
    assert after.pod == to

    def is_off() -> bool:
        annotations = elect.document["metadata"].get("annotations") or {}
        return "leader-sidecar.io/handover-to" not in annotations

    wait_until(is_off, "the annotation is taken off", WITHIN)
    assert release.settled() == after
    assert release.changes_since(before) == 1
    elect.shows(after.pod, after.token, 3)


def test_with_both_replicas_killed_the_election_goes_on_and_is_shown_later(
    release: Release, elect: Elect, operator: Operator
) -> None:
    before = release.settled()
    for pod in operator.pods:
        operator.container(pod).kill()
    to = release.followers(before)[0]
    release.command("handover", "--to", to)
    after = release.settled()
    assert after.pod == to
    elect.shows(after.pod, after.token, 3)


# --- no replica at all --------------------------------------------------------------------------


def restricted(name: str) -> Object:
    """Return a namespace with the restricted profile enforced."""
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": {**OURS, **enforce}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def election(release: Release, namespace: str, **spec: object) -> Object:
    """Return an Election `web` of another namespace, in the etcd of the release."""
    etcd = f"http://{release.name}-etcd.{release.namespace}.svc:2379"
    fields = {"election": f"/leader-sidecar/{namespace}/web", "etcd": {"endpoints": [etcd]}}
    return {
        "apiVersion": "leader-sidecar.io/v1alpha1",
        "kind": "Election",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {**fields, **spec},
    }


def web(release: Release, namespace: str, replicas: int) -> Object:
    """Return a Deployment that asks for sidecars, and serves what they say of themselves."""
    container = {
        "name": "web",
        "image": release.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-m", "http.server", "8000", "--directory", "/run/leader-sidecar"],
        "workingDir": "/",
        "readinessProbe": {"tcpSocket": {"port": 8000}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    template = {
        "metadata": {
            "labels": {"app": "web", "leader-sidecar.io/inject": "true"},
            "annotations": {"leader-sidecar.io/election": "web"},
        },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        },
    }


def containers(pod: Object) -> list[str]:
    """Return the names of a pod's containers."""
    spec = pod["spec"]
    return [c["name"] for c in [*spec.get("initContainers", []), *spec["containers"]]]


def test_without_a_replica_pods_start_and_elections_go_on_and_can_be_deleted(
    release: Release, elect: Elect, operator: Operator
) -> None:
    before = release.settled()
    namespace = f"{release.namespace}-goes"
    within = release.cluster.kubectl.within(namespace)
    release.cluster.kubectl.apply(restricted(namespace), election(release, namespace))
    other = Elect(release, "web", namespace)
    wait_until(lambda: other.status.get("health") == "NoLeader", "it is looked after", WITHIN)
    operator.scale(0)
    try:
        release.cluster.kubectl.apply(web(release, namespace, 1))
        within.run("rollout", "status", "deployment/web", "--timeout=120s")
        (pod,) = within.get("pods", "-l", "app=web")["items"]
        assert containers(pod) == ["web"]  # it runs without a sidecar
        release.kubectl.run("delete", "pod", before.pod)
        after = release.changed_from(before)
        within.run("delete", "elect", "web", "--timeout=30s")
        within.apply(election(release, namespace))
        release.cluster.kubectl.run("delete", "namespace", namespace, "--timeout=120s")
    finally:
        operator.scale(2)
    assert release.settled() == after
    elect.shows(after.pod, after.token, 3)


# --- injection and Services ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(release: Release) -> Iterator[Elect]:
    """Have two pods with injected sidecars in another namespace, and a Service for the leader."""
    namespace = f"{release.namespace}-shop"
    ports = [{"name": "http", "port": 80, "targetPort": 8000}]
    kubectl = release.cluster.kubectl
    kubectl.apply(
        restricted(namespace),
        election(release, namespace, service={"ports": ports}, sidecar={"ttl": "5s"}),
    )
    try:
        kubectl.apply(web(release, namespace, 2))
        kubectl.within(namespace).run("rollout", "status", "deployment/web", "--timeout=180s")
        yield Elect(release, "web", namespace)
    finally:
        kubectl.run("delete", "namespace", namespace, "--wait=false")


def roles(shop: Elect) -> dict[str, str | None]:
    """Return what the labels of the injected pods say."""
    pods = shop.kubectl.get("pods", "-l", "app=web")["items"]
    return {pod["metadata"]["name"]: pod["metadata"]["labels"].get(ROLE) for pod in pods}


def test_a_deployment_with_the_label_gets_its_sidecars_and_elects(shop: Elect) -> None:
    for pod in shop.kubectl.get("pods", "-l", "app=web")["items"]:
        assert containers(pod) == [SIDECAR, "web"]

    def leader() -> str:
        return str(shop.status.get("leader", {}).get("pod", ""))

    wait_until(leader, "one leads", WITHIN)
    shop.shows(leader(), shop.status["token"], 2)
    # Their sidecars write none: they have no rights here.
    wait_until(lambda: sorted(map(str, roles(shop).values())) == ["follower", "leader"], "labels")
    assert roles(shop)[leader()] == "leader"


_ASK = """
import json, sys, time, urllib.request
url, wanted = sys.argv[1:]
while True:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            told = json.load(reply)["id"]
    except (OSError, ValueError):
        continue
    print(told, time.time(), flush=True)
    if told == wanted:
        break
    time.sleep(0.005)
"""


@pytest.mark.parametrize("changes", [3, pytest.param(20, marks=pytest.mark.long)])
def test_the_service_leads_to_the_next_leader_from_another_pod(
    release: Release, shop: Elect, changes: int, measured: Callable[[str], None]
) -> None:
    release.cluster.own_engine()  # whose nodes have the clock of this machine
    took: list[float] = []
    for change in range(changes):
        before = shop.status["leader"]["id"]
        (to,) = set(roles(shop)) - {before}
        # The pod that asks is no endpoint, and on no node in particular.
        asking = ("exec", "deployment/demo-operator", "-c", "operator", "--")
        program = ("python", "-c", _ASK, f"http://web-leader.{shop.kubectl.namespace}/status.json")
        with release.kubectl.child(*asking, *program, to, name=f"ask-{changes}-{change}") as asker:
            asker.wait_for_line(rf"^{before} ")
            threading.Event().wait(QUIET)
            shop.annotate(to)
            answered = float(asker.wait_for_line(rf"^{to} ([\d.]+)$")[1])
        term = recorded(shop.kubectl, to)
        took.append(answered - moment(term["from"]))
    measured(
        f"{changes} changes: answered through the Service after p50 "
        f"{statistics.median(took) * 1e3:.0f} ms, worst {max(took) * 1e3:.0f} ms"
    )
    assert statistics.median(took) <= AT_ONCE


# --- the kind -----------------------------------------------------------------------------------


def test_the_chart_of_the_kind_is_upgraded_in_place_with_objects_in_it(
    release: Release, elect: Elect
) -> None:
    leader = release.settled()
    elect.shows(leader.pod, leader.token, 3)
    before = elect.document["metadata"]
    install_kind(release.cluster, "commonLabels.upgraded=yes")
    labels = release.cluster.kubectl.get("crd", KIND)["metadata"]["labels"]
    assert labels["upgraded"] == "yes"
    assert elect.document["metadata"] == before
    release.command("handover", "--to", release.followers(leader)[0])
    after = release.settled()
    elect.shows(after.pod, after.token, 3)
