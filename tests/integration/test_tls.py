"""etcd behind TLS: certificates that fit, and messages for those that do not."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import USAGE, Sidecar, Team
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.tls import Authority, KeyPair, TlsFiles, make_tls

pytestmark = pytest.mark.integration

# etcd asks for a client's certificate as soon as it has an authority to check it by.
ASKS_NOBODY = ("--client-cert-auth=false", "--trusted-ca-file=")
USER = "sidecar"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return make_tls(tmp_path_factory.mktemp("tls"), client_name=USER)


def running(options: EtcdOptions) -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(options) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def asks_nobody(tls: TlsFiles) -> Iterator[EtcdCluster]:
    """Return an etcd that shows a certificate and wants none."""
    yield from running(EtcdOptions(tls=tls, extra=ASKS_NOBODY, no_fsync=True))


@pytest.fixture(scope="module")
def asks_all(tls: TlsFiles) -> Iterator[EtcdCluster]:
    """Return an etcd that wants a certificate of every client."""
    yield from running(EtcdOptions(tls=tls, no_fsync=True))


@pytest.fixture(scope="module")
def elsewhere(tls: TlsFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """Return an etcd whose certificate is for another host."""
    authority = Authority(tmp_path_factory.mktemp("elsewhere"), "ca")
    server = authority.issue("server", common_name="etcd", hosts=("elsewhere.example",))
    files = dataclasses.replace(tls, ca=authority.cert, server=server)
    yield from running(EtcdOptions(tls=files, extra=ASKS_NOBODY, no_fsync=True))


def team_on(cluster: EtcdCluster, folder: Path, election: str) -> Team:
    return Team(cluster.endpoints, folder, election=election)


def shown(pair: KeyPair) -> list[str]:
    return [f"--cert={pair.cert}", f"--key={pair.key}"]


def assert_hands_over(team: Team, options: list[str]) -> None:
    a, b = team.start("a", "b", options=options)
    token = a.token or 0
    handed = team.command("handover", *options)
    assert handed.returncode == 0, handed.stderr
    assert team.wait_for_leader(after=token) is b


def assert_keeps_trying(sidecar: Sidecar) -> None:
    sidecar.wait_for_code("/livez", 200)
    assert sidecar.code("/readyz") == 503
    sidecar.wait_for_log("DEBUG .*store", skip=3)
    assert sidecar.child.running


def test_sidecars_trust_the_authority_they_were_given(
    asks_nobody: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str
) -> None:
    with team_on(asks_nobody, tmp_path, election) as team:
        assert_hands_over(team, [f"--cacert={tls.ca}"])
        team.judge()


def test_sidecars_show_their_certificate_to_an_etcd_that_asks(
    asks_all: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str
) -> None:
    with team_on(asks_all, tmp_path, election) as team:
        assert_hands_over(team, [f"--cacert={tls.ca}", *shown(tls.client)])
        team.judge()


def test_a_foreign_authority_is_named_and_etcd_tried_again(
    asks_nobody: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str
) -> None:
    with team_on(asks_nobody, tmp_path, election) as team:
        a = team.add("a", f"--cacert={tls.foreign_ca}", "--log-level=debug").start()
        line = a.wait_for_log("WARNING .*store")
        assert "certificate" in line.lower()
        assert_keeps_trying(a)


def test_a_certificate_for_another_host_is_named(
    elsewhere: EtcdCluster, tmp_path: Path, election: str
) -> None:
    tls = elsewhere.options.tls
    assert tls is not None
    with team_on(elsewhere, tmp_path, election) as team:
        a = team.add("a", f"--cacert={tls.ca}", "--log-level=debug").start()
        line = a.wait_for_log("WARNING .*store")
        assert any(word in line.lower() for word in ("hostname", "peer name", "not valid for"))
        assert_keeps_trying(a)


@pytest.mark.parametrize("which", ["none", "foreign"])
def test_a_client_that_etcd_does_not_know_is_told_so(
    asks_all: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str, which: str
) -> None:
    options = shown(tls.foreign) if which == "foreign" else []
    with team_on(asks_all, tmp_path, election) as team:
        a = team.add("a", f"--cacert={tls.ca}", *options, "--log-level=debug").start()
        line = a.wait_for_log("WARNING .*store")
        assert "certificate" in line.lower()
        assert_keeps_trying(a)


def test_an_expired_client_certificate_ends_the_start(
    asks_all: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str
) -> None:
    with team_on(asks_all, tmp_path, election) as team:
        a = team.add("a", f"--cacert={tls.ca}", *shown(tls.expired)).start()
        assert a.child.wait() == USAGE
        (line,) = a.log
        assert "--cert" in line
        assert "expired" in line


def renew(old: TlsFiles, folder: Path) -> None:
    """Put other certificates, and the authority that they come from, in the place of these."""
    folder.mkdir()
    new = make_tls(folder, client_name=USER)
    for pair, other in ((old.server, new.server), (old.client, new.client)):
        shutil.copyfile(other.cert, pair.cert)
        shutil.copyfile(other.key, pair.key)
    shutil.copyfile(new.ca, old.ca)


def test_certificates_that_are_renewed_in_their_files_are_used_for_the_next_connection(
    tmp_path: Path, election: str
) -> None:
    files = make_tls(tmp_path, client_name=USER)
    options = [f"--cacert={files.ca}", *shown(files.client)]
    for cluster in running(EtcdOptions(tls=files, no_fsync=True)):
        with team_on(cluster, tmp_path, election) as team:
            a, b = team.start("a", "b", options=options)
            token = a.token or 0
            files.client.cert.write_text("half a certificate")
            cluster.members[0].restart()
            a.wait_for_log("WARNING .*credentials cannot be read again error=--cert")
            renew(files, tmp_path / "renewed")
            cluster.members[0].restart()
            for sidecar in (a, b):
                sidecar.wait_for_log("INFO .*credentials have changed")
            leader = team.wait_for_leader()
            handed = team.command("handover", *options)
            assert handed.returncode == 0, handed.stderr
            assert team.wait_for_leader(after=max(token, leader.token or 0)) is not leader
            team.judge()


def test_a_certificate_may_stand_for_user_and_password(
    asks_all: EtcdCluster, tls: TlsFiles, tmp_path: Path, election: str
) -> None:
    start, end = f"{election}.control/", f"{election}0"
    asks_all.etcdctl("role", "add", USER)
    asks_all.etcdctl("role", "grant-permission", USER, "readwrite", start, end)
    asks_all.etcdctl("user", "add", USER, "--no-password")
    asks_all.etcdctl("user", "grant-role", USER, USER)
    asks_all.enable_auth("secret-of-root")
    try:
        with team_on(asks_all, tmp_path, election) as team:
            assert_hands_over(team, [f"--cacert={tls.ca}", *shown(tls.client)])
            team.judge()
    finally:
        asks_all.etcdctl("auth", "disable", user="root:secret-of-root")
