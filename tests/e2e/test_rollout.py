"""A rollout replaces every pod, and changes the leader once, whoever leads at its start."""

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {}
RESOURCES = "http://demo:8081/resources"


@pytest.mark.parametrize("position", range(3))
def test_a_rollout_changes_the_leader_once_and_costs_no_request(
    release: Release, position: int
) -> None:
    release.settled()
    oldest_first = sorted(release.pods(), key=lambda pod: pod["metadata"]["creationTimestamp"])
    before = release.hand_over(oldest_first[position]["metadata"]["name"])
    with load(release.kubectl, release.image, RESOURCES) as requests:
        release.upgrade(master={"podAnnotations": {"rollout": str(position)}})
        after = release.changed_from(before)
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    old = {pod["metadata"]["name"] for pod in oldest_first}
    assert not old & {pod["metadata"]["name"] for pod in release.pods()}
    assert release.settled() == after
    assert release.changes_since(before) == 1
