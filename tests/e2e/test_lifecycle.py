"""Upgrades, rollbacks, `helm test`, and another release beside it."""

import pytest

from tests.e2e.support.release import Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"etcd": {"replicas": 1}}


def test_helm_test_passes(release: Release) -> None:
    release.settled()
    assert "Phase:          Succeeded" in release.helm("test", "--timeout=3m")


def test_values_that_may_change_do_and_a_rollback_takes_them_back(release: Release) -> None:
    release.settled()
    first = release.kubectl.get("deployment", "demo")["spec"]["template"]["spec"]
    values = dict(release.values)
    release.upgrade(
        sidecar={"ttl": "6s", "drain": 1, "logFormat": "json", "priority": 50},
        forwarder={"linger": 6},
        service={"annotations": {"a": "b"}},
    )
    release.settled()
    changed = release.kubectl.get("deployment", "demo")["spec"]["template"]["spec"]
    assert "--ttl=6s" in changed["initContainers"][0]["args"]
    release.helm("rollback", "1", "--wait", "--timeout=6m")
    release.values = values
    release.settled()
    assert release.kubectl.get("deployment", "demo")["spec"]["template"]["spec"] == first


def test_masters_are_scaled_down_to_one_and_up_to_five(release: Release) -> None:
    before = release.settled()
    release.upgrade(master={"replicas": 1})
    assert release.settled() == before
    release.upgrade(master={"replicas": 5})
    assert release.settled() == before
    release.upgrade(master={"replicas": 3})
    assert release.settled() == before


def test_another_release_in_the_namespace_has_its_own_election(release: Release) -> None:
    mine = release.settled()
    other = Release(release.cluster, release.namespace, "other", values={"etcd": {"replicas": 1}})
    other.install()
    try:
        theirs = other.settled()
        assert theirs.pod.startswith("other-")
        assert release.settled() == mine
    finally:
        other.uninstall()
    assert release.settled() == mine
