"""A StatefulSet is rolled out by a Job, with one change of the leader, or by Kubernetes itself."""

import json

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"master": {"kind": "StatefulSet"}, "etcd": {"replicas": 1}}
RESOURCES = "http://demo:8081/resources"


def replicas(release: Release) -> dict[str, str]:
    """Return the uid of each Master's pod by its name, which stays the same."""
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in release.pods()}


def are_others(release: Release, before: dict[str, str]) -> bool:
    """Return whether each of the three is there again, as another pod."""
    now = replicas(release)
    return now.keys() == before.keys() and all(now[name] != before[name] for name in now)


def phase_of_the_rollout(release: Release) -> str:
    """Return what became of the Job, as Helm keeps it; the Job itself is gone."""
    told = json.loads(release.helm("status", "--output=json"))
    (job,) = [hook for hook in told["hooks"] if hook["name"] == "demo-rollout"]
    return str(job["last_run"]["phase"])


@pytest.mark.parametrize("ordinal", [2, 0, pytest.param(1, marks=pytest.mark.long)])
def test_the_job_replaces_every_pod_and_changes_the_leader_once(
    release: Release, ordinal: int
) -> None:
    before = release.hand_over(f"demo-{ordinal}")
    old, terms = replicas(release), release.history()
    with load(release.kubectl, release.image, RESOURCES) as requests:
        annotations = {"rollout": str(ordinal)}
        release.upgrade(master={"kind": "StatefulSet", "podAnnotations": annotations})
        after = release.changed_from(before)
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    assert phase_of_the_rollout(release) == "Succeeded"
    assert are_others(release, old)
    assert release.settled() == after
    assert len(release.history()) == len(terms) + 1


def test_an_upgrade_that_leaves_the_pod_template_replaces_nobody(release: Release) -> None:
    before = release.settled()
    old, terms = replicas(release), release.history()
    release.upgrade(service={"annotations": {"a": "b"}})
    assert phase_of_the_rollout(release) == "Succeeded"
    assert release.settled() == before
    assert replicas(release) == old
    assert release.history() == terms


@pytest.mark.long
def test_kubernetes_own_order_changes_the_leader_one_to_three_times(release: Release) -> None:
    release.hand_over("demo-2")  # which Kubernetes replaces first
    old, terms = replicas(release), release.history()
    by_kubernetes = {"rollout": {"strategy": "RollingUpdate"}, "podAnnotations": {"rollout": "k8s"}}
    with load(release.kubectl, release.image, RESOURCES) as requests:
        release.upgrade(master={"kind": "StatefulSet", **by_kubernetes})
        wait_until(lambda: are_others(release, old), f"three others than {old}", 240)
        release.settled()
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    assert 1 <= len(release.history()) - len(terms) <= 3
