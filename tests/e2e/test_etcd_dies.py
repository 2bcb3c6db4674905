"""What happens to etcd, and what the election makes of it."""

import contextlib
import threading

import pytest

from tests.e2e.support.release import Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {}


def claims(release: Release) -> dict[str, str]:
    """Return the volume of each member."""
    found = release.kubectl.get("persistentvolumeclaims")["items"]
    return {claim["metadata"]["name"]: claim["spec"]["volumeName"] for claim in found}


def test_while_one_member_is_frozen_the_leader_leads_on(release: Release) -> None:
    before = release.settled()
    with release.container("demo-etcd-0", "etcd").frozen():
        sent = release.ask(before.pod, "/status")["valid_until_boottime"]

        def renewed_for_long() -> bool:
            status = release.ask(before.pod, "/status")
            return bool(status) and status.get("valid_until_boottime", 0) > sent + 10

        wait_until(renewed_for_long, "ten more seconds of renewals", 60)
        assert release.leader() == before
    assert release.settled() == before


def test_a_deleted_member_comes_back_with_its_volume(release: Release) -> None:
    before = release.settled()
    volumes = claims(release)
    release.kubectl.run("delete", "pod", "demo-etcd-1")
    assert release.settled() == before
    assert claims(release) == volumes


@pytest.mark.parametrize("outage", [20.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_without_a_quorum_nobody_acts_and_afterwards_one_leads(
    release: Release, outage: float
) -> None:
    before = release.settled()
    pods = [pod["metadata"]["name"] for pod in release.pods()]

    def acting() -> list[str]:
        asked = [(pod, release.ask(pod, "/status")) for pod in pods]
        return [pod for pod, status in asked if status is None or status["role"] == "leader"]

    with contextlib.ExitStack() as frozen:
        for member in ("demo-etcd-1", "demo-etcd-2"):
            frozen.enter_context(release.container(member, "etcd").frozen())
        wait_until(lambda: not acting(), "nobody acts", 60)
        # A liveness probe that depended on etcd would restart somebody by now.
        threading.Event().wait(outage)
        assert acting() == []
    after = release.settled()
    assert after.token >= before.token
    assert [pod["metadata"]["name"] for pod in release.pods()] == pods
    restarts = [
        status["restartCount"]
        for pod in release.pods()
        for status in pod["status"]["containerStatuses"] + pod["status"]["initContainerStatuses"]
    ]
    assert set(restarts) == {0}
