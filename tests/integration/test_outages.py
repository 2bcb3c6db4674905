"""etcd that is not there yet, goes away, or comes back: the sidecar lives on and says why."""

import re
import signal
from collections.abc import Iterator

import pytest

from tests.integration.support import LONG, Team
from tests.support.etcd_cluster import EtcdCluster
from tests.support.etcd_server import EtcdServer
from tests.support.procs import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


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


def test_commands_say_when_etcd_does_not_answer(team: Team, etcd: EtcdServer) -> None:
    etcd.kill()
    for name in ("status", "resume"):
        done = team.command(name)
        assert done.returncode == 3, (name, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr
