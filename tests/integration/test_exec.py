"""`exec -- CMD`: CMD runs only while its sidecar leads, whatever becomes of the sidecar."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar import boottime
from tests.integration.support import LONG, Sidecar, Team
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration

TTL = 3

# Writes down its term, then stamps the time again and again. What it does on SIGTERM is its choice.
WORKER = """
import json, os, signal, sys, time
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
manner = sys.argv[2]
def say(**fields):
    # One call of the kernel: a signal's handler may come in the middle of a buffered write.
    os.write(file, (json.dumps({"pid": os.getpid(), **fields}) + "\\n").encode())
def told(*_):
    say(told="SIGTERM")
    if manner == "polite":
        sys.exit(0)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGUSR1, lambda *_: say(told="SIGUSR1"))
say(env={name: value for name, value in os.environ.items() if name.startswith("LEADER_SIDECAR_")})
while not (manner.startswith("exit") and os.path.exists(sys.argv[1] + ".go")):
    say(at=time.clock_gettime(time.CLOCK_BOOTTIME))
    time.sleep(0.005)
sys.exit(int(manner.removeprefix("exit")))
"""


class Worker:
    """CMD of one sidecar, seen through what it wrote."""

    def __init__(self, team: Team, name: str, manner: str = "polite", ttl: float = TTL) -> None:
        self._file = team.folder / f"{name}.worker"
        program = [sys.executable, "-S", "-c", WORKER, self._file, manner]
        self.sidecar: Sidecar = team.add(name, ttl=ttl, program=program)

    def said(self, what: str) -> list[Any]:
        if not self._file.exists():
            return []
        lines = self._file.read_text().split("\n")[:-1]
        return [said[what] for said in map(json.loads, lines) if what in said]

    def wait_for(self, what: str, count: int = 1) -> list[Any]:
        """Wait until it has said so much."""
        wait_until(lambda: len(self.said(what)) >= count, f"{count} x {what}", LONG)
        return self.said(what)

    def go(self) -> None:
        """Let one that ends by itself end."""
        Path(f"{self._file}.go").touch()

    @property
    def is_gone(self) -> bool:
        return all(not Path(f"/proc/{pid}").exists() for pid in set(self.said("pid")))


def two(team: Team, manner: str, ttl: float = TTL) -> tuple[Worker, Worker]:
    """Start two, of which the first leads and works."""
    a, b = Worker(team, "a", manner, ttl), Worker(team, "b", manner, ttl)
    team.launch(a.sidecar, b.sidecar)
    a.wait_for("at")
    assert b.said("at") == []
    return a, b


def assert_one_after_the_other(a: Worker, b: Worker) -> None:
    b.wait_for("at")
    wait_until(lambda: a.is_gone, "the first one's CMD is gone", LONG)
    assert a.said("at")[-1] < b.said("at")[0]


def test_cmd_finds_its_term_in_its_environment(team: Team) -> None:
    a, _ = two(team, "polite")
    (env,) = a.said("env")
    assert env["LEADER_SIDECAR_LEADER_ID"] == "a"
    assert env["LEADER_SIDECAR_TOKEN"] == str(a.sidecar.token)
    assert env["LEADER_SIDECAR_KEY"] == a.sidecar.document()["key"]


def test_cmd_gets_sigterm_before_anybody_else_leads(team: Team) -> None:
    a, b = two(team, "polite", ttl=20)
    assert team.command("resign").returncode == 0
    assert_one_after_the_other(a, b)
    assert a.said("told") == ["SIGTERM"]
    team.wait_for_queue("b", "a")
    assert team.command("handover").returncode == 0
    a.wait_for("env", 2)
    tokens = [int(env["LEADER_SIDECAR_TOKEN"]) for env in a.said("env")]
    assert tokens == sorted(set(tokens))


def test_cmd_that_ignores_sigterm_is_killed_before_anybody_else_leads(team: Team) -> None:
    a, b = two(team, "stubborn")
    team.command("resign")
    assert_one_after_the_other(a, b)
    assert "SIGTERM" in a.said("told")


def test_sigterm_ends_cmd_and_then_the_sidecar(team: Team) -> None:
    a, b = two(team, "polite", ttl=20)
    assert a.sidecar.terminate() == 0
    assert a.is_gone
    assert_one_after_the_other(a, b)


@pytest.mark.parametrize("code", [0, 7])
def test_the_exit_code_of_cmd_is_passed_on_and_leadership_given_back(team: Team, code: int) -> None:
    a, b = two(team, f"exit{code}", ttl=20)
    a.go()
    assert a.sidecar.child.wait(LONG) == code
    assert_one_after_the_other(a, b)
    assert not a.sidecar.leadership.is_leader()


def test_cmd_dies_with_a_sidecar_that_is_killed(team: Team) -> None:
    a, b = two(team, "stubborn")
    a.sidecar.kill()
    wait_until(lambda: a.is_gone, "CMD dies at once", LONG)
    assert not b.sidecar.leadership.is_leader()
    assert_one_after_the_other(a, b)


def test_cmd_dies_in_time_when_its_sidecar_is_frozen(team: Team) -> None:
    a, b = two(team, "stubborn")
    a.sidecar.child.pause()
    assert_one_after_the_other(a, b)
    a.sidecar.child.resume()
    team.wait_for_queue("b", "a")
    assert len(a.said("env")) == 1


def test_cmd_that_ignores_sigterm_dies_at_the_deadline_when_etcd_is_silent(
    team: Team, one_member: EtcdCluster
) -> None:
    a, b = two(team, "stubborn")
    (etcd,) = one_member.members
    etcd.pause()
    try:
        term = a.sidecar.leadership.term()
        assert term is not None
        wait_until(lambda: a.is_gone, "CMD dies", LONG)
        assert boottime.now() >= term.deadline
        assert b.said("at") == []
    finally:
        etcd.resume()


def guard_of(worker: Worker) -> int:
    """Return the pid of CMD's parent."""
    stat = Path(f"/proc/{worker.said('pid')[0]}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def test_cmd_dies_in_time_when_its_guard_is_frozen(team: Team) -> None:
    a, b = two(team, "stubborn")
    guard = guard_of(a)
    os.kill(guard, signal.SIGSTOP)
    try:
        assert team.command("resign").returncode == 0
        b.wait_for("at")
        a.sidecar.wait_for_log("guard is silent, killing the program")
    finally:
        os.kill(guard, signal.SIGCONT)  # a frozen parent reaps nobody
    assert_one_after_the_other(a, b)


def test_exec_never_resumes_a_term(team: Team) -> None:
    a, b = two(team, "polite", ttl=20)
    token = a.sidecar.token or 0
    a.sidecar.kill()
    a.sidecar.start()
    assert_one_after_the_other(a, b)
    assert team.terms()[-1][1] > token
    team.wait_for_queue("b", "a")


def test_signals_are_handed_on_to_cmd(team: Team) -> None:
    a, _ = two(team, "polite")
    a.sidecar.child.signal(signal.SIGUSR1)
    assert a.wait_for("told") == ["SIGUSR1"]
    assert a.sidecar.leadership.is_leader()


def test_cmd_is_no_part_of_a_pause(team: Team) -> None:
    a, b = two(team, "polite", ttl=20)
    assert team.command("pause").returncode == 0
    wait_until(lambda: a.is_gone, "CMD ends", LONG)
    assert b.said("at") == []
    assert team.command("resume").returncode == 0
    wait_until(lambda: len(a.said("env")) + len(b.said("env")) == 2, "CMD runs again", LONG)


def test_a_cmd_that_cannot_be_started_ends_the_sidecar_and_says_so(team: Team) -> None:
    a = team.add("a", program=["/nowhere/cmd"]).start()
    assert a.child.wait(LONG) == 127
    assert "/nowhere/cmd" in a.child.text("err")
