"""TLS between and to the members of etcd, and users of it that may do what they need only."""

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import SIDECAR, Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"tls": {"mode": "helm"}, "users": {"mode": "certificate"}}
RESOURCES = "http://demo:8081/resources"


def secrets(release: Release) -> dict[str, dict[str, str]]:
    """Return the bytes of the Secrets of the release."""
    found = release.kubectl.get("secrets", "-l", "app.kubernetes.io/instance=demo")["items"]
    return {secret["metadata"]["name"]: secret["data"] for secret in found}


def test_one_leads_and_its_program_serves_over_tls_and_with_users(release: Release) -> None:
    release.settled()
    with load(release.kubectl, release.image, RESOURCES) as requests:
        tally = requests.goes_on(20)
    assert tally.failures == 0, tally


def test_etcd_refuses_a_client_without_a_certificate(release: Release) -> None:
    leader = release.settled()
    program = ("leader-sidecar", "status", "--election", "/other", "--cert=", "--key=")
    where = ("--endpoints", f"https://demo-etcd.{release.namespace}.svc:2379")
    done = release.kubectl.completed(
        "exec", leader.pod, "-c", SIDECAR, "--", "env", "-u", "LEADER_SIDECAR_CERT", "-u",
        "LEADER_SIDECAR_KEY", *program[:4], *where,
    )  # fmt: skip
    assert done.returncode == 3, (done.stdout, done.stderr)


def test_the_sidecars_user_may_not_stand_in_another_election(release: Release) -> None:
    leader = release.settled()
    where = ("--endpoints", f"https://demo-etcd.{release.namespace}.svc:2379")
    done = release.kubectl.completed(
        "exec", leader.pod, "-c", SIDECAR, "--", "leader-sidecar", "resign",
        "--election", "/another", *where,
    )  # fmt: skip
    assert done.returncode != 0
    assert "permission" in done.stderr, (done.stdout, done.stderr)


def test_an_upgrade_leaves_every_byte_of_the_secrets(release: Release) -> None:
    release.settled()
    before = secrets(release)
    assert before
    release.upgrade(sidecar={"drain": 1})
    release.settled()
    assert secrets(release) == before
