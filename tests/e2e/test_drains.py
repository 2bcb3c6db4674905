"""Nodes are drained, with and without the operator: no request is lost, and one change is enough.

A drain takes other tests' pods from the node, too, so this module has the nodes alone.
"""

import statistics
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.support.cluster import CONTROL_PLANE
from tests.e2e.support.load import load
from tests.e2e.support.operator import Elect, Operator
from tests.e2e.support.release import Leader, Release, Values, moment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALONE = True
# One Master on each node that takes pods: somebody stays when both workers are drained.
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
    "nodeTaintsPolicy": "Honor",
}
# etcd is where no test takes the node away.
VALUES: Values = {
    "master": {"topologySpreadConstraints": [SPREAD]},
    "etcd": {"replicas": 1, "nodeSelector": {CONTROL_PLANE: ""}},
    "operator": {"enabled": True, "scope": "cluster", "ttl": "5s"},
}
RESOURCES = "http://demo:8081/resources"


@pytest.fixture
def elect(release: Release) -> Elect:
    return Elect(release, release.name, release.namespace)


@pytest.fixture
def without_operator(release: Release) -> Iterator[None]:
    operator = Operator(release)
    operator.scale(0)
    yield
    operator.scale(2)


def drained(release: Release, before: Leader, *nodes: str) -> Leader:
    """Drain nodes as people do, one after the other, under load; return the leader afterwards.

    Meanwhile no request fails, and there is one change of the leader.
    """
    options = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
    with load(release.kubectl, release.image, RESOURCES) as requests:
        try:
            release.cluster.kubectl.run("drain", *nodes, *options)
            after = release.changed_from(before)
            tally = requests.goes_on()
        finally:
            release.cluster.kubectl.run("uncordon", *nodes)
    assert tally.failures == 0, str(tally)
    assert release.settled() == after
    assert release.changes_since(before) == 1
    return after


@pytest.mark.usefixtures("without_operator")
def test_draining_the_leaders_node_costs_no_request(release: Release) -> None:
    release.cluster.own_engine()  # somebody else's nodes hold somebody else's pods
    before = release.lead_on_worker()
    after = drained(release, before, release.node_of(before.pod))
    assert after.pod != before.pod


@pytest.mark.parametrize("drains", [3, pytest.param(20, marks=pytest.mark.long)])
def test_before_a_drain_takes_its_pod_the_leader_was_asked_to_hand_over(
    release: Release, elect: Elect, drains: int, measured: Callable[[str], None]
) -> None:
    release.cluster.own_engine()
    gaps: list[float] = []
    for _ in range(drains):
        before = release.lead_on_worker()
        after = drained(release, before, release.node_of(before.pod))
        *_, ended, running = release.history()
        # A pod that ends on its own says `retired`.
        assert (ended["leader"], ended["reason"]) == (before.pod, "handover")
        move = elect.status["move"]
        assert move["reason"] in {"NodeCordoned", "Eviction"}
        assert (move["token"], move["to"], move["result"]) == (before.token, after.pod, "Done")
        gaps.append(moment(running["from"]) - moment(ended["until"]))
        elect.shows(after.pod, after.token, 3)
    measured(f"{drains} drains: gap p50 {statistics.median(gaps) * 1e3:.0f} ms")


def test_draining_two_nodes_one_after_the_other_changes_the_leader_once(release: Release) -> None:
    release.cluster.own_engine()
    before = release.lead_on_worker()
    first = release.node_of(before.pod)
    workers = release.cluster.workers()
    after = drained(release, before, first, *(node for node in workers if node != first))
    assert release.node_of(after.pod) not in workers
