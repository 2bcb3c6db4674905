"""One dead, silent or cut off member of etcd costs nothing; without a quorum nobody acts."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.support import LONG, Sidecar, Team
from tests.support.binaries import VERSIONS
from tests.support.bridge import Bridge
from tests.support.etcd_cluster import EtcdCluster
from tests.support.netns import NetNs, missing_reason
from tests.support.procs import LOOPBACK, wait_until

pytestmark = pytest.mark.integration

both_versions = pytest.mark.parametrize("three_members", VERSIONS, indirect=True, scope="module")


@pytest.fixture
def bridges(cluster: EtcdCluster) -> Iterator[list[Bridge]]:
    """Return a bridge to each member."""
    with contextlib.ExitStack() as made:
        yield [
            made.enter_context(Bridge(LOOPBACK, member.client_port)) for member in cluster.members
        ]


def through(bridges: list[Bridge]) -> list[str]:
    return [bridge.endpoint for bridge in bridges]


Fault = tuple[Callable[[int], None], Callable[[int], None]]


def fault_of(kind: str, cluster: EtcdCluster, bridges: list[Bridge]) -> Fault:
    """Return how to break member number i, and how to mend it."""
    members = cluster.members

    def refuse(index: int) -> None:
        bridges[index].refuse()
        bridges[index].drop()

    return {
        "dead": (lambda i: members[i].kill(), lambda i: members[i].start()),
        "silent": (lambda i: members[i].pause(), lambda i: members[i].resume()),
        "cut off": (lambda i: bridges[i].blackhole(), lambda i: bridges[i].unblackhole()),
        "refusing": (refuse, lambda i: bridges[i].accept()),
    }[kind]


@pytest.mark.parametrize("kind", ["dead", "silent", "cut off", "refusing"])
def test_no_single_member_costs_leadership(
    team3: Team, cluster: EtcdCluster, bridges: list[Bridge], kind: str
) -> None:
    ttl = 6
    team3.endpoints = ",".join(through(bridges))
    a, b = team3.start("a", "b", ttl=ttl)
    token = a.token or 0
    hurt, mend = fault_of(kind, cluster, bridges)
    for index in range(3):  # the first in use, then the one that it moved on to, and so on
        hurt(index)
        a.wait_for_proof(ttl)
        b.wait_for_link("connected")
        mend(index)
        cluster.wait_healthy()
    assert team3.terms() == [("a", token)]
    assert b.document()["leader"]["token"] == token
    assert a.terminate() == 0
    assert team3.wait_for_leader(after=token) is b


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_the_end_of_etcds_own_leader_does_not_end_the_term(
    team3: Team, cluster: EtcdCluster, kind: str
) -> None:
    ttl = 6
    a, b = team3.start("a", "b", ttl=ttl)
    token = a.token or 0
    chief = cluster.members[cluster.leader_index()]
    if kind == "dead":
        chief.kill()
    else:
        chief.pause()
    others = [member for member in cluster.members if member is not chief]
    wait_until(lambda: any(member.is_leader() for member in others), "another leads etcd", LONG)
    a.wait_for_proof(ttl)
    b.wait_for_link("connected")
    if kind == "dead":
        chief.start()
    else:
        chief.resume()
        wait_until(lambda: not chief.is_leader(), "the old one steps down", LONG)
    a.wait_for_proof(ttl)
    assert team3.terms() == [("a", token)]


def assert_suspended(sidecar: Sidecar) -> None:
    """The outage is told everywhere, and as what it is."""
    sidecar.wait_for_link("suspended")
    assert sidecar.says_everywhere("follower")
    sidecar.wait_for_code("/readyz", 503)
    assert sidecar.code("/livez") == 200


@both_versions
@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_without_a_quorum_nobody_leads_and_afterwards_one_does(
    team3: Team, cluster: EtcdCluster, kind: str
) -> None:
    a, b = team3.start("a", "b", ttl=3)
    token = a.token or 0
    lost = cluster.members[1:]
    for member in lost:
        member.kill() if kind == "dead" else member.pause()
    a.wait_for("follower")
    assert_suspended(a)
    assert a.document()["reason"] == "deadline_passed"
    assert "token" not in a.document()
    assert_suspended(b)
    for member in lost:
        member.child.start() if kind == "dead" else member.resume()
    leader = team3.wait_for_leader()
    assert (leader.name, leader.token) == ("a", token) or (leader.token or 0) > token
    for sidecar in (a, b):
        sidecar.wait_for_link("connected")
        sidecar.wait_for_code("/readyz", 200)


def test_a_suspended_term_goes_on_as_the_same_one(team3: Team, cluster: EtcdCluster) -> None:
    ttl = 5
    a, b = team3.start("a", "b", ttl=ttl)
    token, before = a.token, a.document()
    for member in cluster.members:
        member.pause()
    a.wait_for_link("suspended")
    assert (a.document()["role"], a.document()["reason"]) == ("follower", "deadline_passed")
    for member in cluster.members:
        member.resume()
    # All leases were frozen with etcd, and its next leader grants them anew.
    a.wait_for("leader")
    after = a.document()
    assert (a.token, after["since"], after["transitions"]) == (
        token,
        before["since"],
        before["transitions"],
    )
    assert b.document()["transitions"] == before["transitions"]
    assert team3.terms() == [("a", token)]


def test_after_all_of_etcd_was_stopped_and_started_one_leads(
    team3: Team, cluster: EtcdCluster
) -> None:
    a, b = team3.start("a", "b", ttl=3)
    token = a.token or 0
    for member in cluster.members:
        member.kill()
    assert_suspended(a)
    assert_suspended(b)
    for member in cluster.members:
        member.child.start()
    leader = team3.wait_for_leader()
    assert (leader.name, leader.token) == ("a", token) or (leader.token or 0) > token
    a.wait_for_link("connected")
    b.wait_for_link("connected")


def test_a_leader_that_is_cut_off_is_followed_and_comes_back_as_a_follower(
    team3: Team, cluster: EtcdCluster, bridges: list[Bridge]
) -> None:
    a, b = team3.add("a", endpoints=through(bridges)), team3.add("b")
    team3.launch(a, b)
    token = a.token or 0
    for bridge in bridges:
        bridge.blackhole()
    assert team3.wait_for_leader(after=token) is b
    assert_suspended(a)
    for bridge in bridges:
        bridge.unblackhole()
    team3.wait_for_queue("b", "a")
    assert a.says_everywhere("follower")
    assert a.document()["reason"] != "deadline_passed"
    assert a.document()["leader"]["id"] == "b"


def test_a_leader_that_hears_no_answers_stops_acting(
    team3: Team, cluster: EtcdCluster, bridges: list[Bridge]
) -> None:
    a, b = team3.add("a", endpoints=through(bridges)), team3.add("b")
    team3.launch(a, b)
    token = a.token or 0
    for bridge in bridges:
        bridge.lose_replies()
    assert team3.wait_for_leader(after=token) is b
    assert_suspended(a)


def test_a_leader_whose_packets_get_lost_is_followed(
    team3: Team, cluster: EtcdCluster, tmp_path: Path
) -> None:
    reason = missing_reason()
    if reason is not None:
        pytest.skip(reason)
    with NetNs(tmp_path) as netns:
        gateway = team3.child(
            [
                cluster.binaries.etcd,
                "gateway",
                "start",
                f"--listen-addr={netns.outside}:2379",
                f"--endpoints={','.join(f'{LOOPBACK}:{m.client_port}' for m in cluster.members)}",
            ],
            "gateway",
        )
        gateway.wait_for_line("ready to proxy client requests", stream="err")
        inside = [f"http://{netns.outside}:2379"]
        a = team3.add("a", endpoints=inside, prefix=netns.prefix).start()
        a.wait_for("leader")
        b = team3.add("b").start()
        b.wait_for_code("/readyz", 200)
        token = a.token or 0
        netns.cut()
        assert team3.wait_for_leader(after=token) is b
        a.wait_for_link("suspended")
        netns.heal()
        team3.wait_for_queue("b", "a")
        assert a.check() == 1
        assert a.document()["leader"]["id"] == "b"
        a.close()
