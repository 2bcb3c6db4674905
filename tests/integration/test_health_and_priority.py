"""Who may stand at all, and who is preferred: the program's health, and priorities."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import LONG, Sidecar, Team
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until

pytestmark = pytest.mark.integration

TTL = 20
PROBING = ("--health-interval=100ms", "--health-failures=2")


class Program:
    """A program whose health is up to the test, and the flag that has it probed."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._marker = folder / "healthy"
        self._port = ReservedPort()
        where = f"{LOOPBACK}:{self._port.number}"
        self.flag = {
            "exec": f"--health-exec=test -e {self._marker}",
            "tcp": f"--health-tcp={where}",
            "http": f"--health-http=http://{where}/healthy",
        }[kind]
        self._server: Child | None = None
        if kind != "exec":
            self._server = Child(
                [sys.executable, "-m", "http.server", str(self._port.number), f"--bind={LOOPBACK}"],
                name="program",
                folder=folder,
                cwd=folder,
            )

    def set_healthy(self) -> None:
        self._marker.touch()
        if self._server is not None:
            self._server.start()

    def set_sick(self) -> None:
        self._marker.unlink()
        if self._server is not None:
            self._server.kill()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self._port.close()


@pytest.fixture(params=["exec", "tcp", "http"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    made = Program(request.param, tmp_path)
    yield made
    made.close()


def test_a_candidate_stands_only_while_its_program_is_healthy(team: Team, program: Program) -> None:
    a = team.add("a", program.flag, *PROBING, ttl=TTL).start()
    a.wait_for_log("program is not healthy yet")
    assert a.says_everywhere("follower")
    code, why = a.get("/readyz")
    assert (code, "not registered" in why) == (503, True)
    program.set_healthy()
    a.wait_for("leader")
    token = a.token or 0
    b = team.add("b", ttl=TTL).start()
    b.wait_for_code("/readyz", 200)
    program.set_sick()
    assert team.wait_for_leader(after=token) is b
    assert a.says_everywhere("follower")
    assert a.document()["reason"] == "unhealthy"
    a.wait_for_log(f"step down token={token} reason=unhealthy")
    team.wait_for_queue("b")


def test_a_program_that_recovers_stands_back_first(team: Team, tmp_path: Path) -> None:
    program = Program("exec", tmp_path)
    program.set_healthy()
    a = team.add("a", program.flag, *PROBING, ttl=TTL)
    b = team.add("b", ttl=TTL)
    team.launch(a, b)
    token = a.token or 0
    program.set_sick()
    assert team.wait_for_leader(after=token) is b
    program.set_healthy()
    team.wait_for_queue("b", "a")
    a.wait_for_log("program is healthy")
    assert "stands_back_s=10" in a.wait_for_log("program is unhealthy")
    program.close()


def test_a_higher_priority_takes_over_once(team: Team) -> None:
    a = team.add("a", "--priority=100", ttl=TTL)
    b = team.add("b", "--priority=200", ttl=TTL)
    team.launch(a, b)
    token = a.token or 0
    assert team.wait_for_leader(after=token) is b
    assert a.document()["reason"] in ("priority", "waiting")
    a.wait_for_log(f"step down token={token} reason=priority")
    team.wait_for_queue("b", "a")


def keys(cluster: EtcdCluster, team: Team) -> list[str]:
    found = cluster.etcdctl("get", f"{team.election}/", "--prefix", "--keys-only")
    return found.stdout.split()


def sees(sidecar: Sidecar, leader: str) -> None:
    sidecar.wait_until(
        lambda s: (s.get("leader") or {}).get("id") == leader, f"it sees {leader} lead"
    )


def test_priority_zero_only_observes(team: Team, one_member: EtcdCluster) -> None:
    watcher = team.add("watcher", "--priority=0").start()
    watcher.wait_for_code("/readyz", 200)
    assert keys(one_member, team) == []
    assert watcher.document()["role"] == "observer"
    a = team.add("a").start()
    sees(watcher, "a")
    assert len(keys(one_member, team)) == 1
    assert (watcher.code("/leader"), watcher.code("/follower"), watcher.check()) == (503, 200, 1)
    a.kill()
    wait_until(lambda: keys(one_member, team) == [], "the lease ends", LONG)
    watcher.wait_until(lambda s: s["leader"] is None, "nobody leads")
    assert watcher.terminate() == 0
