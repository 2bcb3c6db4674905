"""Programs that use etcd's own election stand in the same queue as sidecars."""

import json
from typing import Any

import pytest

from tests.integration.support import LONG, OTHER, Team, one_line
from tests.support.binaries import require_go_program
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import Child

pytestmark = pytest.mark.integration

TTL = 3


def goelect(team: Team, name: str) -> Child:
    """Start etcd's own election in Go; it stands as `name` after the line "campaign name"."""
    program = require_go_program("goelect")
    flags = [f"-endpoints={team.endpoints}", f"-election={team.election}", f"-ttl={TTL}"]
    return team.child([program, *flags], name)


def event(child: Child, name: str) -> dict[str, Any]:
    line = child.wait_for_line(f'"event":"{name}"', within=LONG).string
    said: dict[str, Any] = json.loads(line)
    return said


def campaign(team: Team, name: str) -> Child:
    """Start a Go candidate and have it stand."""
    child = goelect(team, name)
    child.send_line(f"campaign {name}")
    event(child, "campaigning")
    return child


def assert_elected_after(team: Team, child: Child, name: str, token: int) -> None:
    """The Go program was elected, and only when nobody could believe in `name` any more."""
    elected = event(child, "elected")
    assert elected["rev"] > token
    assert elected["t"]["boottime_ns"] / 1e9 >= team.last_belief(name, token).until


def test_a_sidecar_follows_a_go_program_and_then_leads(team: Team) -> None:
    go = campaign(team, "go")
    rev = event(go, "elected")["rev"]
    a = team.add("a", ttl=TTL).start()
    a.wait_until(lambda status: (status.get("leader") or {}).get("token") == rev, "go leads")
    assert a.document()["leader"]["id"] == "go"
    assert a.document()["candidates"][0] == "go"
    assert not a.leadership.is_leader()
    go.send_line("resign")
    event(go, "resigned")
    a.wait_for("leader")
    assert (a.token or 0) > rev


def test_a_sidecar_leads_after_a_go_program_that_was_killed(team: Team) -> None:
    go = campaign(team, "go")
    rev = event(go, "elected")["rev"]
    a = team.add("a", ttl=TTL).start()
    a.wait_for_code("/readyz", 200)
    go.kill()
    a.wait_for("leader")
    assert (a.token or 0) > rev


def test_a_go_program_is_elected_when_the_sidecar_before_it_stops(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token or 0
    go = campaign(team, "go")
    team.wait_for_queue_of("a", ["a", "go"])
    assert '"elected"' not in go.text()
    assert a.terminate() == 0
    assert_elected_after(team, go, "a", token)


def test_a_go_program_is_elected_when_the_sidecar_before_it_was_killed(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token or 0
    go = campaign(team, "go")
    team.wait_for_queue_of("a", ["a", "go"])
    a.kill()
    assert_elected_after(team, go, "a", token)


def test_a_sidecar_hands_over_to_a_go_program_that_is_next(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token or 0
    go = campaign(team, "go")
    team.wait_for_queue_of("a", ["a", "go"])
    done = team.command("handover")
    assert done.returncode == 0, done.stderr
    assert "go leads" in done.stdout
    assert_elected_after(team, go, "a", token)
    team.wait_for_queue_of("a", ["go", "a"])
    again = team.command("resign")
    assert again.returncode == OTHER
    assert "another program" in one_line(again.stderr)
    go.send_line("resign")
    a.wait_for("leader")


def test_nobody_is_handed_to_past_a_go_program(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token
    go = campaign(team, "go")
    team.wait_for_queue_of("a", ["a", "go"])
    b = team.add("b", ttl=TTL).start()
    team.wait_for_queue_of("a", ["a", "go", "b"])
    done = team.command("handover", "--to=b")
    assert done.returncode == OTHER
    assert "'go'" in one_line(done.stderr)
    assert a.token == token
    assert '"elected"' not in go.text()
    past = team.command("handover", "--to=go")
    assert past.returncode == 0, past.stderr
    assert event(go, "elected")["rev"] > (token or 0)
    assert not b.leadership.is_leader()


def test_an_election_with_a_go_program_is_not_paused(team: Team) -> None:
    (a,) = team.start("a", ttl=TTL)
    token = a.token
    campaign(team, "go")
    team.wait_for_queue_of("a", ["a", "go"])
    done = team.command("pause")
    assert done.returncode == OTHER
    assert "'go'" in one_line(done.stderr)
    assert team.command("resume").returncode == OTHER  # it is not paused
    assert a.token == token


def elect(team: Team, cluster: EtcdCluster, name: str) -> Child:
    return team.child(cluster.etcdctl_command("elect", team.election, name), name)


def test_etcdctl_elect_leads_before_a_sidecar(team: Team, one_member: EtcdCluster) -> None:
    rival = elect(team, one_member, "rival")
    rival.wait_for_line("^rival$")
    a = team.add("a", ttl=TTL).start()
    a.wait_until(lambda status: (status.get("leader") or {}).get("id") == "rival", "rival leads")
    assert not a.leadership.is_leader()
    rival.terminate()
    a.wait_for("leader")


def test_etcdctl_elect_leads_after_a_sidecar(team: Team, one_member: EtcdCluster) -> None:
    (a,) = team.start("a", ttl=TTL)
    rival = elect(team, one_member, "rival")
    team.wait_for_queue_of("a", ["a", "rival"])
    assert rival.lines() == []
    assert a.terminate() == 0
    rival.wait_for_line("^rival$")
