"""The three steps of the system that this one follows, seen by kubectl; and a pause."""

import json
import re

import pytest

from tests.e2e.support.records import Stored, candidates, revision, stored, term
from tests.e2e.support.release import Leader, Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"worker": {"enabled": True}, "etcd": {"replicas": 1}}
RESOURCE = {"name": "openapi", "urls": ["http://demo:8081/"], "depth": 1, "rate": 20}
AT_ONCE = 2.0  # seconds, where the end of a lease would take five


def says_who_leads(release: Release, pod: str) -> str | None:
    """Return whom a Master's log names as the leader at last."""
    log = release.kubectl.run("logs", pod, "-c", "master")
    named = re.findall(r"watch leader change old=\S+ new=(\S+)", log)
    return named[-1] if named else None


def says_it_leads(release: Release, leader: Leader) -> bool:
    """Return whether a Master's log says that it leads, and with which token."""
    address = release.kubectl.get("pod", leader.pod)["status"]["podIP"]
    said = f"master change to leader id=masterk8s-{address}:9091 token={leader.token}"
    return said in release.kubectl.run("logs", leader.pod, "-c", "master")


def logs_tell_of(release: Release, leader: Leader) -> None:
    """Wait until the logs of all Masters tell who leads."""
    pods = names(release)

    def named() -> set[str | None]:
        return {says_who_leads(release, pod) for pod in pods}

    wait_until(lambda: named() == {leader.pod}, f"all logs name {leader}", 60)
    wait_until(lambda: says_it_leads(release, leader), f"{leader} says so", 60)


def names(release: Release, component: str = "master") -> set[str]:
    """Return the names of the pods of a component."""
    return {pod["metadata"]["name"] for pod in release.pods(component)}


def through_the_service(release: Release, path: str) -> str:
    """Return the URL by which the API server passes a request on to the Service of all Masters."""
    return f"/api/v1/namespaces/{release.namespace}/services/{release.name}:http/proxy{path}"


def worker_of(release: Release, resource: str) -> str:
    """Return which Worker has a resource, as the leading Master tells."""
    told = release.kubectl.run(
        "get", "--raw", through_the_service(release, f"/resources/{resource}")
    )
    return str(json.loads(told)["node"]["id"])


def assigned(release: Release) -> list[Stored]:
    """Return what is assigned to Workers."""
    return stored(release, "/crawler/assignments/")


def is_paused(release: Release, pods: set[str]) -> bool:
    """Return whether the status of each of these pods tells of a pause, and of no leader."""
    told = [release.ask(pod, "/status") for pod in pods]
    return all(
        status and status.get("paused") and status["role"] == "follower" and not status["leader"]
        for status in told
    )


def test_each_master_has_a_key_and_its_log_names_the_leader(release: Release) -> None:
    leader = release.settled()
    standing = candidates(release)
    assert sorted(standing.values()) == sorted(names(release))
    assert next(iter(standing.items())) == (leader.token, leader.pod)
    logs_tell_of(release, leader)


def test_when_the_leading_master_stops_another_leads_at_once_and_workers_keep_their_resources(
    release: Release,
) -> None:
    before = release.settled()
    where = through_the_service(release, "/resources")
    release.kubectl.run("create", "--raw", where, "-f", "-", stdin=json.dumps(RESOURCE))
    wait_until(lambda: worker_of(release, "openapi"), "a Worker has it", 60)
    worker, assignments = worker_of(release, "openapi"), assigned(release)
    assert worker in names(release, "worker")
    wait_until(lambda: stored(release, "/crawler/results/openapi"), "it is crawled", 60)

    release.kubectl.run("delete", "pod", before.pod)
    after = release.changed_from(before)
    ended, begun = term(release, before.token), term(release, after.token)
    stood = candidates(release, at=ended.ended_at - 1)
    assert stood.pop(before.token) == before.pod
    assert candidates(release, at=ended.ended_at) == stood
    assert next(iter(stood.items())) == (after.token, after.pod)
    assert ended.record.until is not None
    assert begun.record.since < ended.record.until + AT_ONCE
    logs_tell_of(release, release.settled())

    assert len(candidates(release)) == 3
    assert worker_of(release, "openapi") == worker
    assert assigned(release) == assignments


def test_while_it_is_paused_nobody_leads_whoever_is_deleted(release: Release) -> None:
    before = release.settled()
    assert "paused until" in release.command("pause")
    pods = names(release)
    wait_until(lambda: is_paused(release, pods), "all say that it is paused", 60)
    # Who led, and who would lead next.
    gone = {before.pod, next(iter(candidates(release).values()))}
    assert len(gone) == 2
    release.kubectl.run("delete", "pod", *gone)
    wait_until(lambda: len(names(release) - gone) == 3, "two pods are there anew", 120)
    pods = names(release)
    wait_until(lambda: is_paused(release, pods), "the new ones say so, too", 120)
    leading = ("pods", "-l", "leader-sidecar.io/role=leader")
    wait_until(lambda: not release.kubectl.exists(*leading), "no pod is labelled as leader", 60)

    resumed_at = revision(release)
    assert "resumed" in release.command("resume")
    after = release.settled()
    assert release.changes_since(before) == 1
    assert term(release, before.token).record.reason == "paused"
    assert term(release, after.token).began_at > resumed_at
