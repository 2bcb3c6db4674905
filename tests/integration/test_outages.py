"""etcd that is not there yet, goes away, or comes back: the sidecar lives on and says why."""

import re
import signal
from collections.abc import Iterator

import pytest

from sidecar.cli import main, reaching
from tests.integration.support import LONG, OTHER, UNREACHABLE, Team
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_server import EtcdServer
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def etcd(one_member: EtcdCluster) -> Iterator[EtcdServer]:
    """Return the only member, which runs again afterwards."""
    (member,) = one_member.members
    yield member
    if member.running:
        member.resume()
    else:
        member.start()


def unanswered(lines: list[str], level: str) -> list[str]:
    return [line for line in lines if re.search(rf"{level} .*store does not answer", line)]


def test_a_sidecar_waits_for_an_etcd_that_is_down_at_its_start(
    team: Team, etcd: EtcdServer
) -> None:
    etcd.kill()
    a = team.add("a", "--log-level=debug").start()
    a.wait_for_code("/livez", 200)
    wait_until(lambda: len(unanswered(a.log, "DEBUG")) >= 5, "it keeps trying", LONG)
    assert a.says_everywhere("follower")
    code, why = a.get("/readyz")
    assert (code, a.code("/livez")) == (503, 200)
    assert "etcd has not answered" in why
    (told,) = unanswered(a.log, "WARNING")
    assert "refused" in told
    etcd.start()
    a.wait_for("leader")
    a.wait_for_log("store answers again")
    a.wait_for_code("/readyz", 200)
    assert len(unanswered(a.log, "WARNING")) == 1


def test_a_sidecar_that_restarts_while_etcd_is_down_writes_a_status_all_the_same(
    team: Team, etcd: EtcdServer
) -> None:
    """With a session.json it waits for what its predecessor claimed, and no longer."""
    (a,) = team.start("a")
    etcd.kill()
    a.child.kill()
    a.start()
    a.wait_for_code("/livez", 200)
    assert a.says_everywhere("follower")
    etcd.start()
    a.wait_for("leader")


def test_a_sidecar_that_never_met_etcd_stops_on_sigterm(team: Team, etcd: EtcdServer) -> None:
    etcd.kill()
    a = team.add("a").start()
    a.wait_for_code("/livez", 200)
    assert a.terminate() == 0


def test_a_sidecar_that_meets_a_silent_etcd_stops_on_sigterm(team: Team, etcd: EtcdServer) -> None:
    etcd.pause()
    a = team.add("a").start()
    a.wait_for_code("/livez", 200)
    assert a.terminate() == 0


def test_the_term_survives_a_restart_of_the_only_member(team: Team, etcd: EtcdServer) -> None:
    a, b = team.start("a", "b", ttl=10)
    token = a.token
    etcd.kill()
    etcd.start()
    a.wait_for_proof(10)
    b.wait_for_link("connected")
    assert team.terms() == [("a", token)]
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token or 0) is b


def test_a_leader_that_is_told_to_stop_without_etcd_ends_and_says_that_its_key_is_left(
    team: Team, etcd: EtcdServer
) -> None:
    a, b = team.start("a", "b", ttl=3)
    token = a.token or 0
    etcd.pause()
    a.child.signal(signal.SIGTERM)
    a.wait_for("follower")
    assert a.child.wait(LONG) == 1
    a.wait_for_log("left to end")
    etcd.resume()
    assert team.wait_for_leader(after=token) is b


def test_a_candidate_that_is_suspended_stops_on_sigterm(team: Team, etcd: EtcdServer) -> None:
    a, b = team.start("a", "b", ttl=3)
    etcd.kill()
    a.wait_for("follower")
    a.wait_for_link("suspended")
    assert a.terminate() == 1
    assert b.terminate() in (0, 1)


def says_what_it_tries_and_fails(team: Team, name: str, said: str) -> bool:
    why = f"etcd does not answer at {team.endpoints}: connection refused"
    tried, failed = said.splitlines()
    is_told = re.fullmatch(rf"{re.escape(why)}; trying for \d s more", tried)
    return is_told is not None and failed == f"leader-sidecar {name}: {why}"


def test_a_command_that_reaches_no_etcd_says_what_it_tries_and_fails(
    team: Team, etcd: EtcdServer
) -> None:
    etcd.kill()
    done = team.command("handover")
    assert (done.returncode, done.stdout) == (UNREACHABLE, "")
    assert says_what_it_tries_and_fails(team, "handover", done.stderr)


@pytest.mark.parametrize("name", ["check", "status", "observe", "resign", "pause", "resume"])
def test_all_commands_that_reach_no_etcd_say_the_same(
    team: Team,
    etcd: EtcdServer,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setattr(reaching, "_SILENT", 0.0)
    monkeypatch.setattr(reaching, "_PATIENCE", 1.5)
    etcd.kill()
    assert main.run([name, *team.store]) == UNREACHABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert says_what_it_tries_and_fails(team, name, told.err)


def test_a_command_to_a_silent_etcd_goes_on_when_it_answers_again(
    team: Team,
    etcd: EtcdServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setattr(reaching, "_PATIENCE", LONG)
    said: list[str] = []

    def hear(text: str, *, err: bool = False) -> None:
        said.append(text)
        etcd.resume()

    monkeypatch.setattr("click.echo", hear)
    etcd.pause()
    assert main.run(["resume", *team.store]) == OTHER, "it is not paused"
    tried, *done = said
    assert tried.startswith(f"etcd does not answer at {team.endpoints}: ")
    assert tried.endswith(" s more")
    assert len(done) == 1
