"""What happens to etcd, and what the election makes of it."""

import contextlib
import threading

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.members import have_etcd_led_by, stored, voters
from tests.e2e.support.release import Release, Values
from tests.e2e.support.volumes import claims
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {}
RESOURCES = "http://demo:8081/resources"
OUTAGE = 60.0  # seconds
STOPPED = "involvedObject.name=demo-etcd-1,reason=EtcdMemberStopped"


def test_while_one_member_is_frozen_the_leader_leads_on(release: Release) -> None:
    before = release.settled()
    # etcd's own leader, woken up, revokes what was renewed meanwhile at its successor.
    have_etcd_led_by(release, "demo-etcd-2")
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
    volumes = claims(release.kubectl)
    release.kubectl.run("delete", "pod", "demo-etcd-1")
    assert release.settled() == before
    assert claims(release.kubectl) == volumes


def test_without_a_quorum_nobody_acts_and_afterwards_one_leads_and_nothing_is_lost(
    release: Release,
) -> None:
    before = release.settled()
    pods = [pod["metadata"]["name"] for pod in release.pods()]
    adds = "outage"

    def acting() -> list[str]:
        asked = [(pod, release.ask(pod, "/status")) for pod in pods]
        return [pod for pod, status in asked if status is None or status["role"] == "leader"]

    with load(release.kubectl, release.image, RESOURCES, per_second=1, adds=adds) as requests:
        with contextlib.ExitStack() as frozen:
            for member in ("demo-etcd-1", "demo-etcd-2"):
                frozen.enter_context(release.container(member, "etcd").frozen())
            wait_until(lambda: not acting(), "nobody acts", 60)
            acknowledged = requests.tally().acknowledged
            # A liveness probe that depended on etcd would restart somebody by now.
            threading.Event().wait(OUTAGE)
            assert acting() == []
            assert requests.tally().acknowledged == acknowledged
        tally = requests.goes_on()
    added = {name: times for name, times in stored(release).items() if name.startswith(adds)}
    assert set(tally.acknowledged) <= set(added)
    assert set(added.values()) == {1}  # although many were asked for again and again

    after = release.settled()
    assert after.token >= before.token
    assert [pod["metadata"]["name"] for pod in release.pods()] == pods
    restarts = [
        status["restartCount"]
        for pod in release.pods()
        for status in pod["status"]["containerStatuses"] + pod["status"]["initContainerStatuses"]
    ]
    assert set(restarts) == {0}


def test_a_member_without_its_volume_waits_and_no_other_is_removed_until_it_is_replaced(
    release: Release,
) -> None:
    before = release.settled()
    volumes, ids = claims(release.kubectl), voters(release)
    release.kubectl.run("delete", "persistentvolumeclaim", "data-demo-etcd-1", "--wait=false")
    release.kubectl.run("delete", "pod", "demo-etcd-1")

    def told() -> str:
        events = release.kubectl.get("events", "--field-selector", STOPPED)["items"]
        return str(events[-1]["message"]) if events else ""

    wait_until(told, "an Event tells why the member does not start", 120)
    assert "its volume was lost" in told()
    assert "etcd.autoReplaceMember=true" in told()

    with pytest.raises(RuntimeError, match="pre-upgrade hooks failed"):
        release.upgrade(etcd={"replicas": 1, "scaleDownTimeoutSeconds": 10})
    # etcd says so: the two that are left are its quorum.
    scaling_down = release.selector("scale-down")
    assert "unhealthy cluster" in release.kubectl.run("logs", "-l", scaling_down)
    assert voters(release) == ids
    assert len(release.pods("etcd")) == 3
    assert release.leader() == before

    release.upgrade(etcd={"autoReplaceMember": True})
    assert release.settled() == before
    replaced = voters(release)
    assert set(replaced) == set(ids)
    assert {name for name in ids if replaced[name] != ids[name]} == {"demo-etcd-1"}
    now = claims(release.kubectl)
    assert {name for name in volumes if now[name] != volumes[name]} == {"data-demo-etcd-1"}
