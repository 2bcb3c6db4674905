"""etcd gets more members and fewer, while it is used."""

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.members import have_etcd_led_by, stored, voters
from tests.e2e.support.release import Release, Values
from tests.e2e.support.volumes import claims
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ETCD = {"antiAffinity": "preferred"}  # there are five members on three nodes
VALUES: Values = {"etcd": ETCD}
RESOURCES = "http://demo:8081/resources"


def scale(release: Release, replicas: int) -> dict[str, str]:
    """Have so many members, each of which votes; return the volumes of their claims."""
    release.upgrade(etcd={**ETCD, "replicas": replicas})
    pods = [f"demo-etcd-{number}" for number in range(replicas)]
    assert sorted(pod["metadata"]["name"] for pod in release.pods("etcd")) == pods
    assert sorted(voters(release)) == pods
    wanted = [f"data-{pod}" for pod in pods]
    wait_until(lambda: sorted(claims(release.kubectl)) == wanted, f"only {wanted} are left", 60)
    return claims(release.kubectl)


def test_scaled_up_and_down_and_up_under_load_etcd_keeps_everything_and_the_leader_leads_on(
    release: Release,
) -> None:
    before = release.settled()
    terms = release.history()
    with load(release.kubectl, release.image, RESOURCES, per_second=10, adds="scaled") as requests:
        first = claims(release.kubectl)
        second = scale(release, 5)
        have_etcd_led_by(release, "demo-etcd-4")  # which is the first to go
        assert scale(release, 3) == first
        third = scale(release, 5)
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    assert {name: third[name] for name in first} == first
    old, fresh = ({now[name] for name in now.keys() - first.keys()} for now in (second, third))
    assert len(fresh) == 2
    assert not old & fresh
    added = stored(release)
    assert set(tally.acknowledged) <= set(added)
    assert set(added.values()) == {1}
    assert release.settled() == before
    assert release.history() == terms
