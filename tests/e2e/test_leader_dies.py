"""What happens to a leader, and who leads after it."""

import json

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import SIDECAR, Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# Longer than a container takes to run again after its first end, on a busy machine, too; shorter
# than the kubelet waits after the second one (10 s).
VALUES: Values = {"sidecar": {"ttl": "8s"}}
RESOURCES = "http://demo:8081/resources"
PER_SECOND = 40


def marks(release: Release, pod: str) -> tuple[str | None, str | None, str | None]:
    """Return the role, the term and the deletion cost that a pod is marked with."""
    metadata = release.kubectl.get("pod", pod)["metadata"]
    annotations = metadata.get("annotations", {})
    return (
        metadata["labels"].get("leader-sidecar.io/role"),
        annotations.get("leader-sidecar.io/term"),
        annotations.get("controller.kubernetes.io/pod-deletion-cost"),
    )


def behind_the_leaders_service(release: Release) -> set[str]:
    """Return the pods that the Service of the leader leads to."""
    slices = release.kubectl.get("endpointslices", "-l", "kubernetes.io/service-name=demo-leader")
    return {
        endpoint["targetRef"]["name"]
        for slice_ in slices["items"]
        for endpoint in slice_["endpoints"] or ()
        if endpoint["conditions"].get("ready")
    }


def test_label_annotations_and_service_follow_a_handover(release: Release) -> None:
    before = release.settled()
    other = release.followers(before)[0]
    after = release.hand_over(other)
    assert after.pod == other
    wait_until(
        lambda: marks(release, after.pod) == ("leader", str(after.token), "1000"), "marks", 60
    )
    wait_until(lambda: marks(release, before.pod)[0::2] == ("follower", None), "marks", 60)
    wait_until(lambda: behind_the_leaders_service(release) == {after.pod}, "service", 60)


def test_events_tell_of_the_change(release: Release) -> None:
    before = release.settled()
    release.kubectl.run("delete", "pod", before.pod)
    after = release.changed_from(before)

    def told() -> set[str]:
        events = release.kubectl.get(
            "events", "--field-selector", f"involvedObject.name={after.pod}"
        )
        return {event["reason"] for event in events["items"]}

    wait_until(lambda: "LeaderElected" in told(), f"an event about {after}", 60)


def test_a_sidecar_killed_once_goes_on_with_its_term(release: Release) -> None:
    before = release.settled()
    killed = release.container(before.pod, SIDECAR)
    killed.kill()
    release.restarted(before.pod, SIDECAR, killed)
    assert release.settled() == before
    assert [t["leader"] for t in release.history()][-1] == before.pod


def test_a_sidecar_killed_twice_meets_the_back_off_and_another_leads(release: Release) -> None:
    before = release.settled()
    if release.container(before.pod, SIDECAR).restarts:  # the kubelet remembers: take a new pod
        release.kubectl.run("delete", "pod", before.pod)
        before = release.changed_from(before)
    for _ in range(2):
        assert release.settled() == before
        killed = release.container(before.pod, SIDECAR)
        killed.kill()
    after = release.changed_from(before, but=before.pod)
    assert after.pod != before.pod
    release.settled()


def test_a_program_killed_alone_serves_again_or_another_leads(release: Release) -> None:
    before = release.settled()
    killed = release.container(before.pod, "master")
    with load(release.kubectl, release.image, RESOURCES, per_second=PER_SECOND) as requests:
        killed.kill()
        release.restarted(before.pod, "master", killed)
        tally = requests.goes_on()
    after = release.settled()
    # Back before its third failed probe it leads on; else it was unhealthy.
    assert (after.pod == before.pod) == (after == before)
    # What was under way is lost with it; what came then has waited.
    assert tally.failures < PER_SECOND, str(tally)


def test_a_frozen_program_loses_the_leadership_to_a_healthy_one(release: Release) -> None:
    before = release.settled()
    with release.container(before.pod, "master").frozen():
        after = release.changed_from(before)
        assert after.pod != before.pod
    release.settled()
    ended = next(term for term in release.history() if term["token"] == before.token)
    assert ended["reason"] == "unhealthy"


def test_a_frozen_sidecar_is_followed_by_another_leader_and_then_follows(release: Release) -> None:
    before = release.settled()
    with release.container(before.pod, SIDECAR).frozen():
        after = release.changed_from(before, but=before.pod)
        assert after.pod != before.pod
    assert release.settled() == after
    status = release.ask(before.pod, "/status")
    assert status["role"] == "follower", json.dumps(status)


def test_when_sidecar_and_program_die_together_somebody_leads_again(release: Release) -> None:
    before = release.settled()
    both = [release.container(before.pod, name) for name in (SIDECAR, "master")]
    for container in both:
        container.kill()
    release.restarted(before.pod, SIDECAR, both[0])
    release.restarted(before.pod, "master", both[1])
    assert release.settled().token >= before.token
