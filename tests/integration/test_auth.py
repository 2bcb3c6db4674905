"""etcd with users and passwords: short-lived tokens, and messages that say what is missing."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import boottime
from tests.integration.support import LONG, UNREACHABLE, USAGE, Team, one_line
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration

ROOT = "root:secret-of-root"
PASSWORD = "secret-of-sidecar"  # noqa: S105 - a test's own
TOKEN_TTL = 1  # seconds: far shorter than the time between two renewals below


@pytest.fixture(scope="module")
def three_members() -> Iterator[EtcdCluster]:
    require_etcd()
    options = EtcdOptions(members=3, auth_token_ttl=TOKEN_TTL, no_fsync=True)
    with EtcdCluster(options) as cluster:
        cluster.enable_auth(ROOT.partition(":")[2])
        for user in ("sidecar", "narrow"):
            cluster.etcdctl("role", "add", user, user=ROOT)
            cluster.etcdctl("user", "add", f"{user}:{PASSWORD}", user=ROOT)
            cluster.etcdctl("user", "grant-role", user, user, user=ROOT)
        yield cluster


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.touch(mode=0o600)
    file.write_text(f"{PASSWORD}\n")
    return file


def login(password: Path, user: str = "sidecar") -> list[str]:
    return [f"--user={user}", f"--password-file={password}"]


def grant(cluster: EtcdCluster, command: str, role: str) -> None:
    """Run a command that a message named, with the role in its place."""
    program, *words = shlex.split(command.replace("ROLE", role))
    assert program == "etcdctl"
    cluster.etcdctl(*words, user=ROOT)


def test_the_message_for_a_role_without_the_range_names_the_command_that_helps(
    team3: Team, cluster: EtcdCluster, password: Path
) -> None:
    a = team3.add("a", *login(password, "narrow")).start()
    line = a.wait_for_log("etcdctl role grant-permission")
    assert "permission denied" in line
    a.wait_for_code("/readyz", 503)
    assert a.says_everywhere("follower")
    found = re.search(r"etcdctl role grant-permission ROLE readwrite \S+ \S+", line)
    assert found is not None
    grant(cluster, found[0], "narrow")
    a.wait_for("leader")
    b = team3.add("b", *login(password, "narrow")).start()
    b.wait_for_code("/readyz", 200)
    token = a.token or 0
    handed = team3.command("handover", *login(password, "narrow"))
    assert handed.returncode == 0, handed.stderr
    assert team3.wait_for_leader(after=token) is b
    assert '"token"' in b.get("/history")[1]  # the history is in the range, too


@pytest.fixture
def granted(cluster: EtcdCluster, team3: Team) -> None:
    """Give the role `sidecar` the range of the test's election."""
    start, end = f"{team3.election}.control/", f"{team3.election}0"
    grant(cluster, f"etcdctl role grant-permission ROLE readwrite '{start}' '{end}'", "sidecar")


@pytest.mark.usefixtures("granted")
def test_a_leader_outlives_its_tokens_and_the_member_that_gave_them(
    team3: Team, cluster: EtcdCluster, password: Path
) -> None:
    ttl = 10  # a renewal every 2 s: each finds the token of the one before expired
    a, b = team3.start("a", "b", ttl=ttl, options=login(password))
    token = a.token or 0
    began = boottime.now()
    a.wait_until(
        lambda status: status["valid_until_boottime"] > began + ttl + 2 * ttl / 5,
        "three renewals",
    )
    cluster.members[0].kill()
    a.wait_for_proof(ttl)
    b.wait_for_link("connected")
    cluster.members[0].start()
    cluster.members[1].kill()
    a.wait_for_proof(ttl)
    assert team3.terms() == [("a", token)]
    assert a.document()["link"] == "connected"
    assert a.terminate() == 0  # it may still write
    assert team3.wait_for_leader(after=token) is b


@pytest.mark.usefixtures("granted")
def test_a_wrong_password_is_named_and_tried_again(
    team3: Team, cluster: EtcdCluster, password: Path
) -> None:
    password.write_text("nonsense\n")
    a = team3.add("a", *login(password)).start()
    line = a.wait_for_log("authentication failed")
    assert "password" in line
    a.wait_for_code("/livez", 200)
    assert a.code("/readyz") == 503
    done = team3.command("resign", *login(password))
    assert done.returncode in (USAGE, UNREACHABLE)
    assert "password" in one_line(done.stderr)
    assert PASSWORD not in a.child.text("err")


@pytest.mark.usefixtures("granted")
def test_a_sidecar_without_a_user_is_told_to_give_one(team3: Team, cluster: EtcdCluster) -> None:
    a = team3.add("a").start()
    assert "--user" in a.wait_for_log("--password-file")
    wait_until(lambda: a.code("/readyz") == 503, "it is not ready", LONG)


@pytest.mark.usefixtures("granted")
def test_a_password_that_others_may_read_is_warned_about_and_never_logged(
    team3: Team, password: Path
) -> None:
    password.chmod(0o644)
    a = team3.add("a", "--log-level=debug", *login(password)).start()
    a.wait_for_log("--password-file")
    a.wait_for("leader")
    assert PASSWORD not in a.child.text("err")
