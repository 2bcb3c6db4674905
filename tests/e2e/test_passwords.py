"""Users of etcd with passwords: each may do what it needs, and an upgrade changes none of it."""

import base64
from subprocess import CompletedProcess

import pytest

from tests.e2e.support.kubectl import Object
from tests.e2e.support.load import load
from tests.e2e.support.release import Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"users": {"mode": "password"}, "etcd": {"replicas": 1}}
RESOURCES = "http://demo:8081/resources"


def etcdctl(release: Release, *command: str, user: str = "") -> "CompletedProcess[str]":
    """Run etcdctl as a user with the password of the user's Secret, or as nobody."""
    who: tuple[str, ...] = ()
    if user:
        password = base64.b64decode(release.secrets()[f"demo-user-{user}"]["password"]).decode()
        who = (f"--user={user}", f"--password={password}")
    program = ("exec", "demo-etcd-0", "-c", "etcd", "--", "etcdctl", *who)
    return release.kubectl.completed(*program, *command)


def users_job(release: Release) -> Object:
    """Return the one Job that cares for the users, when it is done."""
    which = ("jobs", "-l", release.selector("users"))
    release.kubectl.run("wait", *which, "--for=condition=Complete", "--timeout=120s")
    found: list[Object] = release.kubectl.get(*which)["items"]
    (job,) = found
    return job


def writes(release: Release, job: Object) -> int:
    """Return how much the Job had to write, as it says."""
    said = release.kubectl.run("logs", f"job/{job['metadata']['name']}").splitlines()
    return int(said[-1].removesuffix(" writes"))


def test_one_leads_and_its_program_serves_with_passwords(release: Release) -> None:
    release.settled()
    with load(release.kubectl, release.image, RESOURCES, adds="resource") as requests:
        tally = requests.goes_on(20)
    assert tally.failures == 0, str(tally)


def test_etcd_refuses_who_is_no_user(release: Release) -> None:
    release.settled()
    done = etcdctl(release, "put", "/crawler/resources/x", "x")
    assert done.returncode != 0
    assert "user name is empty" in done.stderr


def test_the_sidecars_user_may_write_in_its_election_only(release: Release) -> None:
    release.settled()
    mine = etcdctl(release, "get", "--prefix", f"{release.election}/", user="sidecar")
    assert mine.stdout, mine.stderr
    for key in ("/crawler/resources/x", f"{release.election}-2/x", f"{release.election}2/x"):
        done = etcdctl(release, "put", key, "x", user="sidecar")
        assert done.returncode != 0, key
        assert "permission denied" in done.stderr, (key, done.stderr)


def test_the_programs_user_may_not_write_in_the_election(release: Release) -> None:
    release.settled()
    done = etcdctl(release, "put", f"{release.election}/x", "x", user="master")
    assert done.returncode != 0
    assert "permission denied" in done.stderr


def test_another_upgrade_leaves_every_secret_and_finds_nothing_to_write(release: Release) -> None:
    before = release.settled()
    secrets = release.secrets()
    assert {"demo-etcd-jwt", "demo-user-root", "demo-user-sidecar"} <= set(secrets)
    job = users_job(release)
    assert "helm.sh/hook" not in job["metadata"].get("annotations", {})  # an ordinary Job
    assert writes(release, job) > 0
    release.kubectl.run("delete", "job", job["metadata"]["name"])
    release.upgrade()
    assert writes(release, users_job(release)) == 0
    assert release.secrets() == secrets
    assert release.settled() == before
