"""Users and roles of a real etcd: a first run writes what is missing, a second one nothing."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cluster import rights
from sidecar.cluster.granting import apply, read_users
from sidecar.cluster.rights import Change, User, election_grant
from sidecar.errors import ConfigError
from sidecar.etcd.admin import administering
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import parse_endpoints
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.tls import TlsFiles, make_tls

pytestmark = pytest.mark.integration

ELECTION = "/leader-sidecar/shop/demo"
ROOT, SIDECAR = "root's", "sidecar's"


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[EtcdCluster]:
    require_etcd()
    key = tmp_path / "jwt"
    key.write_text("k" * 64)
    token = f"--auth-token=jwt,priv-key={key},sign-method=HS256,ttl=10m"
    with EtcdCluster(EtcdOptions(extra=(token,))) as cluster:
        yield cluster


async def run(etcd: EtcdCluster, me: Credentials, *wanted: User) -> tuple[Change, ...]:
    async with administering(parse_endpoints(",".join(etcd.endpoints)), me) as cluster:
        return await cluster.ask(lambda admin: apply(admin, wanted, lambda line: None), within=30)


def users(sidecar_password: str = SIDECAR, root_password: str = ROOT) -> tuple[User, User]:
    grants = frozenset({election_grant(ELECTION)})
    return User("root", password=root_password), User("sidecar", grants, sidecar_password)


async def test_a_second_run_writes_nothing_and_a_third_only_what_differs(
    etcd: EtcdCluster,
) -> None:
    root = Credentials("root", ROOT)
    made = await run(etcd, root, *users())
    assert made[-1] == rights.Enable()
    assert await run(etcd, root, *users()) == ()
    changed = await run(etcd, root, *users("another"))
    assert [type(change) for change in changed] == [rights.ChangePassword]
    assert await run(etcd, root, *users("another")) == ()


async def test_the_sidecar_may_use_its_election_and_nothing_else(etcd: EtcdCluster) -> None:
    await run(etcd, Credentials("root", ROOT), *users())
    user = f"sidecar:{SIDECAR}"
    for key in (f"{ELECTION}/1", f"{ELECTION}.control/pause", f"{ELECTION}.history/0"):
        etcd.etcdctl("put", key, "x", user=user)
    for key in (f"{ELECTION}0", "/leader-sidecar/shop/other/1", "/"):
        refused = etcd.etcdctl("put", key, "x", user=user, check=False)
        assert "permission denied" in refused.stderr, key
    assert etcd.etcdctl("get", "a", check=False).returncode != 0


async def test_users_are_known_by_their_certificates(tmp_path: Path) -> None:
    require_etcd()
    tls = make_tls(tmp_path, client_name="root")
    with EtcdCluster(EtcdOptions(tls=tls)) as etcd:
        wanted = (User("root"), User("sidecar", frozenset({election_grant(ELECTION)})))
        root = credentials(tls)
        made = await run(etcd, root, *wanted)
        assert made[-1] == rights.Enable()
        assert await run(etcd, root, *wanted) == ()
        assert etcd.etcdctl("put", f"{ELECTION}/1", "x").returncode == 0  # root, by its certificate


def credentials(tls: TlsFiles) -> Credentials:
    return Credentials(
        "", "", tls.ca.read_bytes(), tls.client.cert.read_bytes(), tls.client.key.read_bytes()
    )


def test_users_are_read_with_their_passwords(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret\n")
    given = {"name": "root", "passwordFile": str(tmp_path / "password")}
    other = {"name": "sidecar", "elections": [ELECTION], "readWrite": ["/a/"], "read": ["/b/"]}
    path = tmp_path / "users.json"
    path.write_text(json.dumps({"users": [given, other]}))
    root, sidecar = read_users(path)
    assert root == User("root", password="secret")  # noqa: S106 - of this test
    assert election_grant(ELECTION) in sidecar.grants
    assert {(g.key, g.is_read_only) for g in sidecar.grants} >= {(b"/a/", False), (b"/b/", True)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "cannot read"),
        ('{"users": []}', "no user root"),
        ('{"users": [{"name": "root", "passwordFile": "/nowhere"}]}', "No such file"),
        ('{"users": [{"name": "root"}, {"name": "a", "elections": ["/a/"]}]}', "ends in '/'"),
    ],
)
def test_users_that_cannot_be_read_are_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "users.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_users(path)
