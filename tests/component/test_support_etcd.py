"""Real clusters of every version can be started, hurt, mended and set back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.binaries import BUILT_VERSION, VERSIONS, require_etcd
from tests.support.bridge import Bridge
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import LOOPBACK, wait_until
from tests.support.tls import KeyPair, make_tls

pytestmark = pytest.mark.timeout(300)  # the first use may have to build etcd

SINGLE = EtcdOptions(heartbeat_ms=50, election_ms=500)
TRIO = replace(SINGLE, members=3)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    wanted: str = request.param
    require_etcd(wanted)
    return wanted


@pytest.fixture
def single(version: str) -> Iterator[EtcdCluster]:
    with EtcdCluster(replace(SINGLE, version=version)) as cluster:
        yield cluster


@pytest.fixture
def trio(version: str) -> Iterator[EtcdCluster]:
    with EtcdCluster(replace(TRIO, version=version)) as cluster:
        yield cluster


def put(cluster: EtcdCluster, key: str, value: str, *, member: int | None = None) -> None:
    endpoints = None if member is None else [cluster.endpoints[member]]
    cluster.etcdctl("put", key, value, endpoints=endpoints)


def get(cluster: EtcdCluster, key: str, *, member: int | None = None) -> str:
    endpoints = None if member is None else [cluster.endpoints[member]]
    got = cluster.etcdctl("get", key, "--print-value-only", endpoints=endpoints)
    return got.stdout.removesuffix("\n")


def test_a_member_of_the_wanted_version_keeps_data_over_a_kill_and_a_stop(
    single: EtcdCluster, version: str
) -> None:
    (member,) = single.members
    assert f'"etcd-version":"{version}"' in member.child.text("err")
    put(single, "a", "1")
    member.kill()
    assert not member.running
    assert not member.is_healthy()
    member.start()
    assert get(single, "a") == "1"
    member.restart()
    assert get(single, "a") == "1"


def test_a_paused_member_answers_nothing_until_it_is_resumed(single: EtcdCluster) -> None:
    (member,) = single.members
    member.pause()
    assert member.running
    assert not member.is_healthy()
    silent = single.etcdctl("get", "a", "--command-timeout=300ms", check=False)
    assert silent.returncode != 0
    member.resume()
    member.wait_healthy()


def test_a_cluster_survives_the_loss_of_its_leader_and_takes_it_back(trio: EtcdCluster) -> None:
    old = trio.leader_index()
    trio.members[old].kill()
    rest = {0, 1, 2} - {old}
    wait_until(lambda: trio.leader_index() in rest, "another member leads")
    other = rest.pop()
    put(trio, "a", "1", member=other)
    trio.members[old].start()
    assert get(trio, "a", member=old) == "1"


def test_without_a_quorum_members_are_not_healthy(trio: EtcdCluster) -> None:
    left = trio.leader_index()
    for index in {0, 1, 2} - {left}:
        trio.members[index].pause()
    wait_until(lambda: not trio.members[left].is_healthy(), "the member left is not healthy")
    for index in {0, 1, 2} - {left}:
        trio.members[index].resume()
    trio.wait_healthy()


def test_a_restored_backup_has_a_smaller_revision_on_the_same_ports(
    single: EtcdCluster, tmp_path: Path
) -> None:
    put(single, "a", "1")
    single.save_snapshot(tmp_path / "backup")
    saved = single.header()
    for number in range(5):
        put(single, "a", str(number))
    endpoints = single.endpoints

    single.restore(tmp_path / "backup")
    restored = single.header()
    assert restored["revision"] == saved["revision"]
    assert restored["cluster_id"] == saved["cluster_id"]
    assert single.endpoints == endpoints
    assert get(single, "a") == "1"

    single.restore(tmp_path / "backup", new_cluster_id=True)
    assert single.header()["cluster_id"] != saved["cluster_id"]


def test_three_members_are_restored_together_with_a_bumped_revision(tmp_path: Path) -> None:
    require_etcd(BUILT_VERSION)  # the wheel's etcdutl cannot bump
    with EtcdCluster(TRIO) as cluster:
        put(cluster, "a", "1")
        cluster.save_snapshot(tmp_path / "backup")
        saved = cluster.header()
        cluster.restore(tmp_path / "backup", bump_revision=1000)
        assert cluster.header()["revision"] >= saved["revision"] + 1000
        for member in range(3):
            assert get(cluster, "a", member=member) == "1"


def test_a_client_behind_a_bridge_is_cut_off_by_it(single: EtcdCluster) -> None:
    with Bridge(LOOPBACK, single.members[0].client_port) as bridge:
        through = [bridge.endpoint]
        single.etcdctl("put", "a", "1", endpoints=through)
        bridge.blackhole()
        lost = single.etcdctl(
            "put", "a", "2", "--command-timeout=500ms", endpoints=through, check=False
        )
        assert lost.returncode != 0
        bridge.unblackhole()
        assert single.etcdctl("get", "a", endpoints=through).stdout == "a\n1\n"


def test_users_are_asked_for_their_password_once_authentication_is_on(single: EtcdCluster) -> None:
    single.enable_auth("secret")
    assert single.etcdctl("get", "a", check=False).returncode != 0
    assert single.etcdctl("get", "a", user="root:wrong", check=False).returncode != 0
    single.etcdctl("put", "a", "1", user="root:secret")
    assert single.members[0].is_healthy()


def test_only_certificates_of_the_right_authority_that_are_still_good_are_let_in(
    version: str, tmp_path: Path
) -> None:
    tls = make_tls(tmp_path)
    with EtcdCluster(replace(SINGLE, version=version, tls=tls)) as cluster:

        def is_refused(pair: KeyPair, reason: str) -> bool:
            impatient = ("--command-timeout=1s", "--dial-timeout=1s")
            tried = cluster.etcdctl("get", "a", *impatient, client=pair, check=False)
            return tried.returncode != 0 and reason in cluster.members[0].child.text("err")

        cluster.etcdctl("put", "a", "1", client=tls.client)
        assert is_refused(tls.expired, "certificate has expired")
        assert is_refused(tls.foreign, "signed by unknown authority")


def test_options_reach_the_members(tmp_path: Path) -> None:
    require_etcd(BUILT_VERSION)
    options = EtcdOptions(
        auth_token_ttl=7,
        quota_backend_bytes=32 * 1024 * 1024,
        data_parent=tmp_path,
        no_fsync=True,
        extra=("--max-request-bytes=2000000",),
    )
    with EtcdCluster(options) as cluster:
        log = cluster.members[0].child.text("err")
        assert '"quota-backend-bytes":33554432' in log
        assert '"max-request-bytes":2000000' in log
        assert "--auth-token-ttl=7" in log
        assert (tmp_path / "etcd0.etcd" / "member").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_cannot_start_shows_its_log() -> None:
    require_etcd(BUILT_VERSION)
    cluster = EtcdCluster(EtcdOptions(extra=("--no-such-flag",)))
    with pytest.raises(AssertionError, match="no-such-flag"):
        cluster.start()


def test_nothing_is_left_of_a_closed_cluster(version: str) -> None:
    with EtcdCluster(replace(SINGLE, version=version)) as cluster:
        (member,) = cluster.members
        pid, data = member.child.pid, member.data_dir
        assert data.is_dir()
    assert not Path(f"/proc/{pid}").exists()
    assert not data.parent.exists()
