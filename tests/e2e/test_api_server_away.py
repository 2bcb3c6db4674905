"""The API server is away: the election does not need it, and afterwards the labels are right."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.support.cluster import Cluster
from tests.e2e.support.load import load
from tests.e2e.support.release import SIDECAR, Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALONE = True
VALUES: Values = {}
RESOURCES = "http://demo:8081/resources"
OUTAGE = 60.0  # seconds


@contextmanager
def without_api_server(cluster: Cluster) -> Iterator[None]:
    """Freeze the API server for a while."""
    selector = ("-l", "node-role.kubernetes.io/control-plane")
    node = cluster.kubectl.get("nodes", *selector)["items"][0]["metadata"]["name"]
    found = cluster.kubectl.get("pod", f"kube-apiserver-{node}", "-n", "kube-system")
    (status,) = found["status"]["containerStatuses"]
    container = status["containerID"].removeprefix("containerd://")
    cluster.on_node(node, "ctr", "-n", "k8s.io", "task", "pause", container)
    try:
        yield
    finally:
        cluster.on_node(node, "ctr", "-n", "k8s.io", "task", "resume", container)


def test_while_the_api_server_is_away_the_leader_leads_on_and_serves(release: Release) -> None:
    before = release.settled()
    with load(release.kubectl, release.image, RESOURCES) as requests:
        with without_api_server(release.cluster):
            threading.Event().wait(OUTAGE)
        release.kubectl.run("wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    assert tally.longest_gap < 2, str(tally)
    assert release.settled() == before


def test_a_change_while_the_api_server_is_away_is_labelled_afterwards(release: Release) -> None:
    before = release.settled()
    to = release.followers(before)[0]
    sidecar = release.container(before.pod, SIDECAR)
    which = (f"--election={release.election}", f"--endpoints={release.endpoints}")
    with without_api_server(release.cluster):
        said = sidecar.run("leader-sidecar", "handover", "--to", to, *which)
        assert f"{to} leads" in said
    after = release.settled()  # which the labels say, too
    assert after.pod == to
    assert after.token > before.token
