"""A volume that its user cannot use is told as what it is, and never taken for an empty one."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from sidecar.cluster import volume
from sidecar.cluster.initializing import Files, Initializer
from sidecar.cluster.own_pod import ANNOTATION, Pods
from sidecar.cluster.plan import Plan
from sidecar.election.ports import SystemClock
from sidecar.errors import Refused
from sidecar.etcd.admin import administering
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import parse_endpoints
from tests.cluster.kubernetes_api import KubernetesApi

SOMEBODY = 12345
POD = "/api/v1/namespaces/shop/pods/demo-etcd-0"
INSIDE = ("", "member", "member/wal", "member/snap")


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where etcd has its data, in a folder that everybody may pass through."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        path = Path(made) / "volume" / "data"
        path.parent.mkdir()
        yield path


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be a user without privileges for a while; who is none but such a user stays so."""
    if os.geteuid() != 0:
        yield
        return
    groups = os.getgroups()
    with ExitStack() as back:
        back.callback(os.setgroups, groups)
        os.setgroups([])
        back.callback(os.setegid, os.getegid())
        os.setegid(SOMEBODY)
        back.callback(os.seteuid, os.geteuid())
        os.seteuid(SOMEBODY)
        yield


def fill(data_dir: Path) -> None:
    """Have data there as etcd keeps it, which everybody may use."""
    for name in INSIDE:
        (data_dir / name).mkdir()
        (data_dir / name).chmod(0o777)
    (data_dir / "member" / "wal" / "0.wal").touch()


def bar(data_dir: Path) -> None:
    """Let nobody but root use what is there."""
    data_dir.chmod(0o000)


def test_a_volume_that_can_be_used_is_none_to_speak_of(data_dir: Path) -> None:
    data_dir.parent.chmod(0o777)
    with as_somebody():
        assert volume.problem(data_dir) is None
    fill(data_dir)
    data_dir.parent.chmod(0o555)  # etcd has made its directory already
    with as_somebody():
        assert volume.problem(data_dir) is None
    assert sorted(path.name for path in data_dir.rglob("*")) == ["0.wal", "member", "snap", "wal"]


def test_storage_that_ignores_the_group_of_the_pod_is_told_with_what_would_be_right(
    data_dir: Path,
) -> None:
    data_dir.parent.chmod(0o555)
    with as_somebody():
        told = volume.problem(data_dir)
        user = os.geteuid()
    assert told is not None
    assert told.startswith(f"{data_dir.parent} cannot be read and written by user {user} of the")
    assert "mode 0555" in told
    assert "ignores the pod's fsGroup" in told
    assert "a StorageClass whose driver applies fsGroup" in told


@pytest.mark.parametrize("where", INSIDE)
def test_data_of_another_user_is_no_empty_directory(data_dir: Path, where: str) -> None:
    fill(data_dir)
    bar(data_dir / where)
    with as_somebody():
        told = volume.problem(data_dir)
    assert told is not None
    assert told.startswith(f"{data_dir / where} cannot be read")


async def test_a_member_whose_volume_cannot_be_used_stops_with_an_event_and_says_nothing_of_data(
    data_dir: Path,
) -> None:
    fill(data_dir)
    bar(data_dir)
    plan = Plan(
        stateful_set="demo-etcd",
        namespace="shop",
        replicas=1,
        peer_url="http://{name}:2380",
        client_url="http://{name}:2379",
        endpoints=parse_endpoints("http://127.0.0.1:1"),
        token="shop-demo-etcd",  # noqa: S106 - the name of a cluster
        replaces_lost=True,
        config={},
    )
    with KubernetesApi() as api:
        api.things[POD] = {"metadata": {"name": "demo-etcd-0", "uid": "u"}, "status": {}}
        async with administering(plan.endpoints, Credentials()) as cluster:
            starting = Initializer(
                plan,
                "demo-etcd-0",
                Files(data_dir, data_dir.parent / "etcd.yaml"),
                cluster=cluster,
                pods=Pods(api.api, "shop", "demo-etcd-0", "u"),
                clock=SystemClock(),
                say=lambda line: None,
                within=5.0,
            )
            await asyncio.to_thread(int)  # somebody else may not read what that imports
            with as_somebody(), pytest.raises(Refused, match="fsGroup"):
                await starting.run()
        ((_, event),) = api.created
        assert event["reason"] == "EtcdMemberStopped"
        assert "fsGroup" in event["message"]
        assert ANNOTATION not in str(api.things[POD])
