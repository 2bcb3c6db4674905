"""A leader that is killed, restarted, frozen or told to stop: who leads next, and who says so."""

import http.client
import signal
import time

import pytest

from sidecar import boottime
from tests.integration.support import LONG, Team
from tests.support.binaries import VERSIONS
from tests.support.bridge import Bridge
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, wait_until

pytestmark = pytest.mark.integration

both_versions = pytest.mark.parametrize("one_member", VERSIONS, indirect=True, scope="module")

SLACK = 10.0  # seconds on top of what is promised, for a slow machine


@both_versions
def test_the_next_one_leads_when_the_killed_leader_stays_down(team: Team) -> None:
    ttl = 2
    a, b, _ = team.start("a", "b", "c", ttl=ttl)
    token = a.token or 0
    a.kill()
    killed = boottime.now()
    assert team.wait_for_leader(after=token) is b
    assert boottime.now() - killed < ttl + SLACK
    assert b.says_everywhere("leader")
    assert a.check() == 1
    b.wait_for_log("change to leader .*reason=elected")


@both_versions
def test_a_leader_that_is_killed_and_restarted_at_once_goes_on_with_its_token(team: Team) -> None:
    a, b, c = team.start("a", "b", "c", ttl=20)
    token = a.token
    seen = c.document()["transitions"]
    a.kill()
    a.start().wait_for_log(f"change to leader token={token} reason=resumed")
    a.wait_for_proof(20)
    team.wait_for_queue("a", "b", "c")
    assert a.says_everywhere("leader")
    assert team.terms() == [("a", token)]
    assert a.document()["reason"] == "resumed"
    assert (c.document()["transitions"], b.document()["leader"]["token"]) == (seen, token)


def test_a_restarted_follower_queues_again_and_costs_nothing(team: Team) -> None:
    a, b, _ = team.start("a", "b", "c", ttl=20)
    token = a.token
    b.kill()
    b.start().wait_for_code("/readyz", 200)
    wait_until(lambda: b.document().get("leader"), "b sees the leader", LONG)
    assert team.terms() == [("a", token)]


@both_versions
def test_a_frozen_leader_never_says_leader_again_with_its_old_token(
    team: Team, one_member: EtcdCluster
) -> None:
    ttl = 2
    with Bridge(LOOPBACK, one_member.members[0].client_port) as bridge:
        a, b = team.add("a", endpoints=[bridge.endpoint], ttl=ttl), team.add("b", ttl=ttl)
        team.launch(a, b)
        token = a.token or 0
        asker = http.client.HTTPConnection(LOOPBACK, int(a.url.rpartition(":")[2]), timeout=LONG)
        asker.connect()
        a.child.pause()
        frozen = boottime.now()
        bridge.pause()  # when it thaws, nothing but the clock can tell it that its term is over
        asker.request("GET", "/leader")
        assert team.wait_for_leader(after=token) is b
        wait_until(lambda: boottime.now() > frozen + 2 * ttl, "2 x TTL have passed", LONG)
        thawed = boottime.now()
        a.child.resume()
        assert asker.getresponse().status == 503
        asker.close()
        assert a.says_everywhere("follower")
        bridge.resume()
        team.wait_for_queue("b", "a")
        assert a.says_everywhere("follower")
        assert b.says_everywhere("leader")
        assert a.document()["leader"]["id"] == "b"
    assert team.last_belief("a", token).until <= frozen + ttl
    assert all(one.until < thawed for one in team.recorder.beliefs if one.name == "a")


@both_versions
def test_sigterm_steps_down_in_order_and_the_next_one_leads_at_once(team: Team) -> None:
    ttl = 30  # far more than the change may take: nobody waits for a lease to end
    a, b, _ = team.start("a", "b", "c", ttl=ttl)
    token = a.token or 0
    asked = time.monotonic()
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token) is b
    assert time.monotonic() - asked < ttl / 2
    assert a.document()["role"] == "follower"
    assert a.document()["reason"] == "shutdown"
    assert (a.document()["link"], a.document()["leader"]) == ("lost", None)
    assert not any("link lost" in line for line in a.log)
    assert (a.status_dir / "follower").exists()
    assert not (a.status_dir / "session.json").exists()
    a.wait_for_log(f"step down token={token} reason=shutdown")
    b.wait_for_log("watch leader change old=a new=b")


def candidates(cluster: EtcdCluster, team: Team) -> int:
    got = cluster.etcdctl("get", f"{team.election}/", "--prefix", "--keys-only")
    return len(got.stdout.split())


def test_drain_delays_the_key_and_not_the_status(team: Team, one_member: EtcdCluster) -> None:
    drain = 3
    a, b = team.start("a", "b", ttl=20, options=[f"--drain={drain}"])
    token = a.token or 0
    a.child.signal(signal.SIGTERM)
    a.wait_for("follower")
    told = time.monotonic()
    assert a.says_everywhere("follower")
    assert candidates(one_member, team) == 2
    assert not b.leadership.is_leader()
    assert team.wait_for_leader(after=token) is b
    assert drain - 1 < time.monotonic() - told
    assert a.child.wait(LONG) == 0


def test_a_drain_longer_than_the_lease_is_kept_while_etcd_answers(team: Team) -> None:
    ttl, drain = 2, 6
    a, b = team.start("a", "b", ttl=ttl, options=[f"--drain={drain}"])
    token = a.token or 0
    a.child.signal(signal.SIGTERM)
    a.wait_for("follower")
    told = time.monotonic()
    assert team.wait_for_leader(after=token) is b
    assert time.monotonic() - told > drain - 1
    assert a.child.wait(LONG) == 0


def test_a_second_sigterm_skips_the_drain(team: Team, one_member: EtcdCluster) -> None:
    drain = 45
    a, b = team.start("a", "b", ttl=60, options=[f"--drain={drain}"])
    token = a.token or 0
    asked = time.monotonic()
    a.child.signal(signal.SIGTERM)
    a.wait_for("follower")
    assert candidates(one_member, team) == 2
    assert a.terminate() == 0
    assert team.wait_for_leader(after=token) is b
    assert time.monotonic() - asked < drain


def test_a_follower_that_stops_leaves_the_queue_at_once(
    team: Team, one_member: EtcdCluster
) -> None:
    a, b = team.start("a", "b", ttl=60)
    assert b.terminate() == 0
    assert candidates(one_member, team) == 1
    assert a.leadership.is_leader()
