"""`leader-sidecar etcd ...` and `rollout` as they are called in pods."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.cli.main import run
from sidecar.cluster.plan import Plan
from sidecar.errors import ConfigError
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.procs import Child, wait_until

GIVEN = {
    "statefulSet": "demo-etcd",
    "namespace": "shop",
    "replicas": 1,
    "peerUrl": "http://{name}.demo-etcd.shop.svc:2380",
    "clientUrl": "http://{name}.demo-etcd.shop.svc:2379",
    "endpoints": "http://127.0.0.1:1",
    "token": "shop-demo-etcd",
    "config": {},
}


@pytest.fixture
def etcd() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions()) as cluster:
        yield cluster


def plan_file(folder: Path, **changed: object) -> str:
    path = folder / "plan.json"
    path.write_text(json.dumps({**GIVEN, **changed}))
    return str(path)


def test_a_plan_tells_all_its_problems(tmp_path: Path) -> None:
    path = plan_file(tmp_path, replicas=0, peerUrl="", config=[])
    with pytest.raises(ConfigError) as caught:
        Plan.read(Path(path))
    assert [p.split()[1] for p in caught.value.problems] == ["peerUrl", "replicas", "config"]


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_file_that_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Plan.read(path)


def test_endpoints_of_a_plan_must_have_a_port(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="endpoints: 'http://a' has no port"):
        Plan.read(Path(plan_file(tmp_path, endpoints="http://a")))


@pytest.mark.integration
def test_users_are_brought_to_what_they_shall_be(
    etcd: EtcdCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    users = tmp_path / "users.json"
    (tmp_path / "secret").write_text("secret")
    password = {"passwordFile": str(tmp_path / "secret")}
    wanted = [{"name": "root", **password}, {"name": "sidecar", "elections": ["/e"], **password}]
    users.write_text(json.dumps({"users": wanted}))
    plan = plan_file(tmp_path, endpoints=",".join(etcd.endpoints))
    root = ["--user=root", f"--password-file={tmp_path / 'secret'}"]
    arguments = ["etcd", "users", f"--plan={plan}", f"--users={users}", *root]
    assert run(arguments) == 0
    told = capsys.readouterr().out
    assert "the role sidecar may read and write [/e.control/, /e0)" in told
    assert run(arguments) == 0
    assert capsys.readouterr().out == "0 writes\n"


@pytest.mark.integration
def test_a_member_that_wastes_space_is_defragmented(
    etcd: EtcdCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_file(tmp_path, endpoints=",".join(etcd.endpoints))
    assert run(["etcd", "defragment", f"--plan={plan}", "--wasted=0"]) == 0
    told = capsys.readouterr().out
    assert "bytes on disk" in told
    assert told.endswith("defragmented 1 member(s)\n")
    assert run(["etcd", "defragment", f"--plan={plan}", "--wasted=1"]) == 0
    assert capsys.readouterr().out == "defragmented 0 member(s)\n"


@pytest.mark.integration
def test_who_votes_already_only_waits_for_its_end(etcd: EtcdCluster, tmp_path: Path) -> None:
    plan = plan_file(tmp_path, endpoints=",".join(etcd.endpoints), peerUrl=etcd.members[0].peer_url)
    command = [
        sys.executable,
        "-m",
        "sidecar",
        "etcd",
        "keep",
        f"--plan={plan}",
        "--name=demo-etcd-0",
    ]
    with Child(command, name="keep", folder=tmp_path) as keeper:

        def is_at_rest() -> bool:
            return b"sigwait" in Path(f"/proc/{keeper.pid}/cmdline").read_bytes()

        wait_until(is_at_rest, "the small process")
        os.kill(keeper.pid, signal.SIGTERM)
        assert keeper.wait() == 0


@pytest.mark.integration
def test_who_waits_ends_at_once_on_sigterm_also_as_the_first_process(
    etcd: EtcdCluster, tmp_path: Path
) -> None:
    plan = plan_file(tmp_path, endpoints=",".join(etcd.endpoints), peerUrl="http://127.0.0.1:1")
    command = [sys.executable, "-m", "sidecar", "etcd", "keep", f"--plan={plan}", "--name=a"]
    with Child(command, name="keep", folder=tmp_path) as keeper:
        keeper.wait_for_line("waiting: a is not a member yet")
        os.kill(keeper.pid, signal.SIGTERM)
        assert keeper.wait() == 128 + signal.SIGTERM


def test_outside_of_a_cluster_the_reason_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    plan = plan_file(tmp_path)
    assert run(["etcd", "scale-down", f"--plan={plan}", "--replicas=1"]) == 2
    assert "no pod of Kubernetes" in capsys.readouterr().err


def test_a_duration_that_is_none_is_told_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_file(tmp_path)
    assert run(["etcd", "keep", f"--plan={plan}", "--name=a", "--within=soon"]) == 2
    assert "--within" in capsys.readouterr().err
