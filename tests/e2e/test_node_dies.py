"""The leader's node dies: runs last, because its node starts anew."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.support.cluster import Cluster
from tests.e2e.support.load import load
from tests.e2e.support.members import have_etcd_led_on
from tests.e2e.support.release import Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALONE = True
# With two Masters on the node that dies, one could not tell what all the living ones say.
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
}
VALUES: Values = {"master": {"topologySpreadConstraints": [SPREAD]}}
TTL = 5.0
WITHIN = 180.0  # seconds; Kubernetes looks for 40 s, as a rule


@contextmanager
def dead(cluster: Cluster, node: str) -> Iterator[None]:
    """Have a node dead for a while."""
    engine = cluster.own_engine()
    try:
        engine.run("kill", node)
        yield
    finally:
        engine.run("start", node)
        cluster.connect_nodes()
        cluster.kubectl.run("wait", "--for=condition=Ready", f"node/{node}", "--timeout=180s")


@pytest.mark.parametrize(("etcd_led_there", "at_most"), [(False, TTL + 1), (True, TTL + 4)])
def test_when_the_leaders_node_dies_a_living_pod_reaches_the_next_leader_in_time(
    release: Release, etcd_led_there: bool, at_most: float, measured: Callable[[str], None]
) -> None:
    before = release.lead_on_worker()
    node = release.node_of(before.pod)
    have_etcd_led_on(release, node, wanted=etcd_led_there)
    # Not through a Service: that leads to the dead pod, too, until its node is found to be gone.
    living = next(p for p in release.pods() if p["spec"]["nodeName"] != node)
    resources = f"http://{living['status']['podIP']}:8080/resources"
    with (
        load(release.kubectl, release.image, resources) as requests,
        dead(release.cluster, node),
    ):
        tally = requests.goes_on()
        after = release.changed_from(before, but=before.pod)
        if not etcd_led_there:
            measured(left_by_the_leader_service(release, before.pod))
    assert after.pod != before.pod
    measured(
        f"leader's node died, etcd's leader there: {etcd_led_there}: "
        f"gap through another pod {tally.longest_gap:.2f} s"
    )
    assert tally.longest_gap < at_most, str(tally)
    release.settled()


def left_by_the_leader_service(release: Release, pod: str) -> str:
    """Wait until the leader Service leads to a dead pod no longer; tell how long that took."""
    which = ("endpointslices", "-l", f"kubernetes.io/service-name={release.name}-leader")

    def is_led_to() -> bool:
        endpoints = [e for s in release.kubectl.get(*which)["items"] for e in s["endpoints"] or ()]
        return any(e["targetRef"]["name"] == pod and e["conditions"]["ready"] for e in endpoints)

    began = time.monotonic()
    assert is_led_to()  # nobody but Kubernetes may touch that pod
    wait_until(lambda: not is_led_to(), f"{release.name}-leader leaves {pod}", WITHIN)
    return f"the leader Service led to a pod of a dead node for {time.monotonic() - began:.0f} s"
