"""A store that is full, went back in time, holds strangers' values, or was laid hands on."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import LONG, Sidecar, Team
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import inherited_environment, wait_until

pytestmark = pytest.mark.integration

QUOTA = 1024 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Return an etcd that is soon full."""
    require_etcd()
    with EtcdCluster(EtcdOptions(quota_backend_bytes=QUOTA, no_fsync=True)) as cluster:
        yield cluster


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EtcdCluster]:
    """Return an etcd of this test's own."""
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as cluster:
        yield cluster


def put(cluster: EtcdCluster, key: str, value: bytes, *, check: bool = True) -> str:
    """Put any bytes; return what etcdctl said on stderr."""
    given = [] if value else [""]  # nothing on stdin is no value
    done = subprocess.run(
        cluster.etcdctl_command("put", key, *given),
        input=value,
        capture_output=True,
        env=inherited_environment(),
        check=check,
    )
    return done.stderr.decode()


def fill(cluster: EtcdCluster) -> None:
    """Put values until the store takes no more, and says so by an alarm."""
    number = 0
    while "space exceeded" not in put(cluster, f"/filling/{number}", bytes(200_000), check=False):
        number += 1
    wait_until(lambda: "NOSPACE" in cluster.etcdctl("alarm", "list").stdout, "the alarm", LONG)


def clear(cluster: EtcdCluster) -> None:
    """Make room again, as etcd's documentation says."""
    cluster.etcdctl("del", "/filling/", "--prefix")
    cluster.etcdctl("compaction", str(cluster.header()["revision"]))
    cluster.etcdctl("defrag")
    cluster.etcdctl("alarm", "disarm")


def test_a_leader_of_a_full_store_leads_on_and_can_step_down(
    small: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(small.endpoints, tmp_path, election=election) as team:
        a, b = team.start("a", "b")
        token = a.token or 0
        fill(small)
        a.wait_for_proof(3)
        assert team.terms() == [("a", token)]
        told = team.command("handover")
        assert told.returncode != 0
        assert "space" in told.stderr
        assert a.terminate() == 0
        assert team.wait_for_leader(after=token) is b
        b.wait_for_proof(3)
        team.judge()


def test_a_sidecar_that_meets_a_full_store_says_so_and_stands_when_there_is_room(
    small: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(small.endpoints, tmp_path, election=election) as team:
        fill(small)
        a = team.add("a").start()
        assert "space exceeded" in a.wait_for_log("WARNING .*store")
        assert a.says_everywhere("follower")
        assert (a.code("/readyz"), a.code("/livez")) == (503, 200)
        clear(small)
        a.wait_for("leader")
        team.judge()


def test_a_stepped_down_leader_of_a_full_store_stands_again_when_there_is_room(
    small: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(small.endpoints, tmp_path, election=election) as team:
        a, b = team.start("a", "b")
        token = a.token or 0
        fill(small)
        small.etcdctl("del", a.document()["key"])  # nothing of ours does that
        team.recorder.forget("a")  # it may believe in itself until the event arrives
        assert team.wait_for_leader(after=token) is b
        a.wait_for("follower")
        clear(small)
        team.wait_for_queue("b", "a")
        team.judge()


def restore_older(cluster: EtcdCluster, team: Team, folder: Path, *, bump: bool) -> int:
    """Restore a backup from before the two candidates came; return the old leader's token."""
    backup = folder / "backup"
    cluster.save_snapshot(backup)
    for number in range(20):
        put(cluster, "/busy", str(number).encode())
    a, _ = team.start("a", "b")
    token = a.token or 0
    cluster.restore(backup, bump_revision=1_000_000 if bump else None)
    return token


def queue_of_both(team: Team, *, not_led_by: int) -> list[str]:
    """Return the queue that both see, once both stand in it and have left that of a token."""

    def seen() -> list[str]:
        documents = [sidecar.document() for sidecar in team.members.values()]
        if any((document.get("leader") or {}).get("token") == not_led_by for document in documents):
            return []
        one, other = (document.get("candidates", []) for document in documents)
        return one if one == other and len(one) == 2 else []

    return wait_until(seen, "both stand again", LONG)


def test_nobody_acts_with_a_smaller_token_until_it_is_accepted(
    own: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(own.endpoints, tmp_path, election=election) as team:
        token = restore_older(own, team, tmp_path, bump=False)
        a, b = team.members["a"], team.members["b"]
        ahead = team.members[queue_of_both(team, not_led_by=token)[0]]
        ahead.wait_until(lambda s: s.get("reason") == "token_went_back", "it says why")
        assert own.header()["revision"] < token
        assert team.leaders() == []
        assert {name for name, _ in team.terms()} == {"a"}
        for sidecar in (a, b):  # also a restart does not forget
            sidecar.kill()
            sidecar.start()
        ahead = team.members[queue_of_both(team, not_led_by=token)[0]]
        ahead.wait_until(lambda s: s.get("reason") == "token_went_back", "it still says why")
        assert team.leaders() == []
        team.tokens_may_shrink = True
        for sidecar in (a, b):
            sidecar.terminate()
            sidecar.child.argv.append("--accept-token-reset")
        a.start().wait_for("leader")
        b.start().wait_for_code("/readyz", 200)
        assert (a.token or 0) < token
        assert a.terminate() == 0
        b.wait_for("leader")
        team.judge()


def test_the_log_says_how_to_accept_a_smaller_token(
    own: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(own.endpoints, tmp_path, election=election) as team:
        token = restore_older(own, team, tmp_path, bump=False)
        ahead = team.members[queue_of_both(team, not_led_by=token)[0]]
        assert str(token) in ahead.wait_for_log("--accept-token-reset")


def test_a_backup_restored_with_a_bumped_revision_needs_no_hand(
    own: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(own.endpoints, tmp_path, election=election) as team:
        token = restore_older(own, team, tmp_path, bump=True)
        leader = team.wait_for_leader(after=token)
        assert (leader.token or 0) > 1_000_000
        team.judge()


def test_three_huge_values_of_strangers_disturb_nobody(
    own: EtcdCluster, tmp_path: Path, election: str
) -> None:
    with Team(own.endpoints, tmp_path, election=election) as team:
        a = team.add("a").start()
        a.wait_for("leader")
        token = a.token
        for number in range(3):
            put(own, f"{election}/stranger-{number}", b"x" * 1_500_000)
        strangers = [f"stranger-{number}" for number in range(3)]
        a.wait_until(lambda s: s.get("candidates") == ["a", *strangers], "the strangers")
        b = team.add("b").start()
        b.wait_until(lambda s: s.get("candidates") == ["a", *strangers, "b"], "all in the queue")
        assert (a.token, b.document()["leader"]["id"]) == (token, "a")
        assert len((b.status_dir / "status.json").read_bytes()) < 10_000
        assert a.terminate() == 0
        b.wait_until(
            lambda s: (s.get("leader") or {}).get("id") == "stranger-0", "a stranger is first"
        )
        assert not b.leadership.is_leader()
        own.etcdctl("del", f"{election}/stranger", "--prefix")
        b.wait_for("leader")
        team.judge()


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"\xff\xfe\x00\x80", "stranger"),
        (b"", "stranger"),
        (b"two\nlines", "stranger"),
        ("grüße".encode(), "grüße"),
        (b'{"v": 1, "id": 7}', '{"v": 1, "id": 7}'),
        (b"[" * 10_000, "stranger"),
    ],
    ids=["binary", "empty", "newline", "umlaut", "other-json", "deep-json"],
)
def test_a_strangers_value_counts_in_the_queue_whatever_it_is(
    team: Team, one_member: EtcdCluster, value: bytes, name: str
) -> None:
    key = f"{team.election}/stranger"
    put(one_member, key, value)
    a = team.add("a").start()
    a.wait_until(lambda s: s.get("candidates") == [name, "a"], "the stranger is first")
    assert a.document()["leader"]["id"] == name
    assert a.says_everywhere("follower")
    one_member.etcdctl("del", key)
    a.wait_for("leader")


def lease_of(sidecar: Sidecar) -> int:
    """Return the lease in `session.json`, which is written soon after a candidacy began."""
    record = sidecar.status_dir / "session.json"
    wait_until(record.exists, "session.json", LONG)
    lease: int = json.loads(record.read_text())["lease"]
    return lease


def test_a_leader_whose_key_is_deleted_says_so_and_stands_again(
    team: Team, one_member: EtcdCluster
) -> None:
    a = team.add("a", ttl=20).start()
    a.wait_for("leader")
    token = a.token or 0
    one_member.etcdctl("del", a.document()["key"])
    a.wait_for_log(f"step down token={token} reason=key_gone")
    assert team.wait_for_leader(after=token) is a


def test_a_leader_whose_lease_is_revoked_says_so_and_stands_again(
    team: Team, one_member: EtcdCluster
) -> None:
    a = team.add("a", ttl=20).start()
    a.wait_for("leader")
    token = a.token or 0
    lease = lease_of(a)
    one_member.etcdctl("lease", "revoke", f"{lease:x}")
    a.wait_for_log(f"step down token={token} reason=(key_gone|session_lost)")
    assert team.wait_for_leader(after=token) is a


def test_a_waiter_whose_key_is_deleted_queues_again(team: Team, one_member: EtcdCluster) -> None:
    a, b, _ = team.start("a", "b", "c", ttl=20)
    token = a.token
    lease = lease_of(b)
    one_member.etcdctl("del", f"{team.election}/{lease:x}")
    team.wait_for_queue("a", "c", "b")
    assert a.token == token


def test_the_end_of_an_old_term_is_told_in_the_history(team: Team) -> None:
    a, b = team.start("a", "b", ttl=20)
    token = a.token or 0
    a.terminate()
    assert team.wait_for_leader(after=token) is b
    terms = {term["token"]: term for term in json.loads(b.get("/history")[1])}
    assert terms[token]["leader"] == "a"
    assert terms[token]["reason"] == "shutdown"


def test_compaction_disturbs_nobody(team: Team, one_member: EtcdCluster) -> None:
    a, b = team.start("a", "b")
    token = a.token or 0
    put(one_member, f"{team.election}.control/nothing", b"new revision")
    one_member.etcdctl("compaction", str(one_member.header()["revision"]))
    (member,) = one_member.members
    member.restart()  # the watches are opened again, beyond what is kept
    a.wait_for_proof(3)
    b.wait_for_link("connected")
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token) is b
