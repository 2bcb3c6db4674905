"""The Go rivals answer as their documentation says, with stamps that compare across processes."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.binaries import require_etcd, require_go_program
from tests.support.bridge import Bridge
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child, wait_until

pytestmark = pytest.mark.timeout(300)  # the first use may have to build


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster() as started:
        yield started


def goelect(
    cluster: EtcdCluster, election: str, name: str, folder: Path, *, through: Bridge | None = None
) -> Child:
    program = require_go_program("goelect")
    endpoints = cluster.endpoints if through is None else [through.endpoint]
    flags = [f"-endpoints={','.join(endpoints)}", f"-election={election}", "-ttl=5"]
    return Child([program, *flags], name=name, folder=folder)


def event(child: Child, name: str, *, skip: int = 0) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(child.wait_for_line(f'"event":"{name}"', skip=skip).string)
    return said


def now_ns() -> tuple[int, int]:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_leadership_goes_from_one_process_to_the_next(cluster: EtcdCluster, tmp_path: Path) -> None:
    with (
        goelect(cluster, "/go/change", "a", tmp_path) as a,
        goelect(cluster, "/go/change", "b", tmp_path) as b,
    ):
        a.send_line("campaign first value")
        won = event(a, "elected")
        assert won["value"] == "first value"
        assert won["key"] == f"/go/change/{event(a, 'session')['lease']}"
        b.send_line("campaign b")
        event(b, "campaigning")
        a.send_line("resign")
        resigned, followed = event(a, "resigned"), event(b, "elected")
        assert followed["rev"] > won["rev"]
        assert resigned["rev"] == won["rev"]
        called, done = resigned["t_called"], resigned["t_done"]
        assert called["monotonic_ns"] < done["monotonic_ns"]
        assert called["monotonic_ns"] < followed["t"]["monotonic_ns"]


def test_stamps_are_on_the_clocks_of_this_machine(cluster: EtcdCluster, tmp_path: Path) -> None:
    with goelect(cluster, "/go/stamps", "a", tmp_path) as a:
        event(a, "session")
        before = now_ns()
        a.send_line("campaign a")
        stamp = event(a, "elected")["t"]
        after = now_ns()
    assert before[0] <= stamp["monotonic_ns"] <= after[0]
    assert before[1] <= stamp["boottime_ns"] <= after[1]


def test_a_leader_is_observed_and_proclaims(cluster: EtcdCluster, tmp_path: Path) -> None:
    with goelect(cluster, "/go/observe", "a", tmp_path) as a:
        a.send_line("leader")
        assert "no leader" in event(a, "error")["message"]
        a.send_line("observe")
        a.send_line("campaign one")
        won = event(a, "elected")
        seen = event(a, "observed")
        assert (seen["value"], seen["key"], seen["rev"]) == ("one", won["key"], won["rev"])
        a.send_line("proclaim two")
        event(a, "proclaimed")
        assert event(a, "observed", skip=1)["value"] == "two"
        a.send_line("leader")
        assert event(a, "leader")["value"] == "two"


def test_close_ends_the_session_and_gives_the_key_up(cluster: EtcdCluster, tmp_path: Path) -> None:
    with goelect(cluster, "/go/close", "a", tmp_path) as a:
        a.send_line("campaign a")
        event(a, "elected")
        a.send_line("close")
        event(a, "session_done")
        assert cluster.etcdctl("get", "/go/close/", "--prefix").stdout == ""
        a.send_line("quit")
        assert a.wait() == 0


def test_a_lost_reply_is_of_a_request_that_was_obeyed(cluster: EtcdCluster, tmp_path: Path) -> None:
    def value() -> str:
        got = cluster.etcdctl("get", "/go/lost/", "--prefix", "--print-value-only")
        return got.stdout.strip()

    with (
        Bridge(LOOPBACK, cluster.members[0].client_port) as bridge,
        goelect(cluster, "/go/lost", "a", tmp_path, through=bridge) as a,
    ):
        a.send_line("campaign one")
        event(a, "elected")
        bridge.lose_replies()
        a.send_line("proclaim two")
        wait_until(lambda: value() == "two", "the request is obeyed")
        assert "proclaimed" not in a.text()


def test_unknown_and_untimely_commands_are_errors(cluster: EtcdCluster, tmp_path: Path) -> None:
    with (
        goelect(cluster, "/go/errors", "a", tmp_path) as a,
        goelect(cluster, "/go/errors", "b", tmp_path) as b,
    ):
        a.send_line("abdicate")
        assert event(a, "error")["during"] == "abdicate"
        a.send_line("proclaim a")
        assert "not leader" in event(a, "error", skip=1)["message"]
        a.send_line("campaign a")
        event(a, "elected")
        b.send_line("campaign b")
        event(b, "campaigning")
        b.send_line("resign")
        assert "under way" in event(b, "error")["message"]


def test_the_limit_is_measured_between_two_processes(cluster: EtcdCluster, tmp_path: Path) -> None:
    program = require_go_program("golimit")
    flags = [f"-endpoints={cluster.endpoints[0]}", "-key=/golimit/run", "-rounds=5"]
    with Child([program, "run", *flags], name="run", folder=tmp_path) as run:
        assert run.wait() == 0, run.tail()
        rounds = [json.loads(line) for line in run.lines()]
    assert [one["round"] for one in rounds] == [0, 1, 2, 3, 4]
    for one in rounds:
        way = one["t_seen"]["monotonic_ns"] - one["t_called"]["monotonic_ns"]
        assert 0 < way == one["delete_to_seen_ns"]


def test_both_sides_of_the_limit_can_be_run_apart(cluster: EtcdCluster, tmp_path: Path) -> None:
    program = require_go_program("golimit")
    flags = [f"-endpoints={cluster.endpoints[0]}", "-key=/golimit/apart"]
    with (
        Child([program, "watch", *flags], name="watch", folder=tmp_path) as watch,
        Child([program, "put", *flags], name="put", folder=tmp_path) as put,
    ):
        event(watch, "watching")
        for number in range(3):
            put.send_line("")
            deleted, seen = event(put, "deleted", skip=number), event(watch, "seen", skip=number)
            assert deleted["round"] == number
            assert deleted["rev"] == seen["rev"]
            assert deleted["t_called"]["monotonic_ns"] < seen["t"]["monotonic_ns"]
