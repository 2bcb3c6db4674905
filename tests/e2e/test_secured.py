"""TLS between and to the members of etcd, and users of it that may do what they need only."""

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import SIDECAR, Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"tls": {"mode": "helm", "keep": True}, "users": {"mode": "certificate"}}
ANOTHER: Values = {
    "tls": {"mode": "helm"},
    "etcd": {"replicas": 1, "persistence": {"enabled": False}},
}
RESOURCES = "http://demo:8081/resources"


def test_one_leads_and_its_program_serves_over_tls_and_with_users(release: Release) -> None:
    release.settled()
    with load(release.kubectl, release.image, RESOURCES, adds="resource") as requests:
        tally = requests.goes_on(20)
    assert tally.failures == 0, str(tally)


def test_etcd_refuses_a_client_without_a_certificate(release: Release) -> None:
    leader = release.settled()
    program = ("leader-sidecar", "status", "--election", "/other", "--endpoints", release.endpoints)
    done = release.kubectl.completed(
        "exec", leader.pod, "-c", SIDECAR, "--", "env", "-u", "LEADER_SIDECAR_CERT", "-u",
        "LEADER_SIDECAR_KEY", *program,
    )  # fmt: skip
    assert done.returncode == 3, (done.stdout, done.stderr)


def test_the_sidecars_user_may_not_stand_in_another_election(release: Release) -> None:
    leader = release.settled()
    which = ("--election", "/another", "--endpoints", release.endpoints)
    done = release.kubectl.completed(
        "exec", leader.pod, "-c", SIDECAR, "--", "leader-sidecar", "resign", *which
    )
    assert done.returncode != 0
    assert "permission" in done.stderr, (done.stdout, done.stderr)


def test_an_upgrade_leaves_every_byte_of_the_secrets(release: Release) -> None:
    release.settled()
    before = release.secrets()
    assert before
    release.upgrade(sidecar={"drain": 1})
    release.settled()
    assert release.secrets() == before


def test_uninstalling_leaves_the_certificates_only_where_they_shall_be_kept(
    release: Release,
) -> None:
    release.settled()
    other = Release(release.cluster, release.namespace, "other", values=dict(ANOTHER))
    other.helm("install")  # what matters is there at once
    assert other.secrets()
    other.uninstall()
    release.uninstall()
    claims = [f"persistentvolumeclaim/data-demo-etcd-{number}" for number in range(3)]
    secrets = [f"secret/demo-tls-{name}" for name in ("ca", "master", "root", "server", "sidecar")]
    kept = claims + secrets
    wait_until(lambda: release.kubectl.everything() == kept, f"only {kept} are left", 120)
