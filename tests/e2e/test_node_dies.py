"""The leader's node dies: runs last, because its node starts anew."""

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.members import have_etcd_led_on
from tests.e2e.support.release import Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# With two Masters on the node that dies, one could not tell what all the living ones say.
SPREAD = {
    "maxSkew": 1,
    "topologyKey": "kubernetes.io/hostname",
    "whenUnsatisfiable": "DoNotSchedule",
}
VALUES: Values = {"master": {"topologySpreadConstraints": [SPREAD]}}
TTL = 5.0


@pytest.mark.parametrize(("etcd_led_there", "at_most"), [(False, TTL + 1), (True, TTL + 4)])
def test_when_the_leaders_node_dies_a_living_pod_reaches_the_next_leader_in_time(
    release: Release, etcd_led_there: bool, at_most: float
) -> None:
    before = release.lead_on_worker()
    node = release.node_of(before.pod)
    have_etcd_led_on(release, node, wanted=etcd_led_there)
    # Not through a Service: that leads to the dead pod, too, until its node is found to be gone.
    living = next(p for p in release.pods() if p["spec"]["nodeName"] != node)
    resources = f"http://{living['status']['podIP']}:8080/resources"
    engine = release.cluster.own_engine()
    with load(release.kubectl, release.image, resources) as requests:
        try:
            engine.run("kill", node)
            tally = requests.goes_on()
            after = release.changed_from(before, but=before.pod)
        finally:
            engine.run("start", node)
            release.cluster.connect_nodes()
            ready = ("wait", "--for=condition=Ready", f"node/{node}", "--timeout=180s")
            release.cluster.kubectl.run(*ready)
    assert after.pod != before.pod
    assert tally.longest_gap < at_most, tally
    release.settled()
