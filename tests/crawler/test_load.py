"""The crawler under load while its leader changes: `make crawler-faults`, in a few rounds.

What may not happen at all is asked for here; how long it takes is measured there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from crawler import keys
from crawler.local_world import ELECTION
from crawler.records import Assignment, Resource, Spec

from benchmarks.crawler import scenarios
from benchmarks.crawler.__main__ import WAYS
from benchmarks.crawler.load import Told
from benchmarks.crawler.scenarios import Found, Through
from benchmarks.crawler.verify import _doubled, _stale
from sidecar.core.store import Event, KeyValue
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RATE = 40.0  # a rate that a slow machine keeps up with
ROUNDS = 2


@pytest.fixture
def cluster() -> Iterator[EtcdCluster]:
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


@pytest.mark.parametrize("through", WAYS)
def test_no_request_fails_in_a_planned_handover(
    cluster: EtcdCluster, tmp_path: Path, through: Through
) -> None:
    found = scenarios.handovers(cluster, tmp_path, through, count=ROUNDS, rate=RATE)
    assert found.errors == {}
    assert found.is_clean, found.verdicts


@pytest.mark.parametrize("through", WAYS)
@pytest.mark.parametrize("scenario", [scenarios.kills, scenarios.freezes])
def test_nothing_acknowledged_is_lost_or_doubled_when_a_leader_crashes_or_freezes(
    cluster: EtcdCluster, tmp_path: Path, through: Through, scenario: Callable[..., Found]
) -> None:
    found = scenario(cluster, tmp_path, through, count=ROUNDS, rate=RATE)
    assert found.changes == ROUNDS
    assert found.is_clean, found.verdicts
    assert found.unclear == []


def test_many_resources_are_added_through_a_follower(cluster: EtcdCluster, tmp_path: Path) -> None:
    found = scenarios.scale(cluster, tmp_path, resources=300, workers=3)
    assert (found.resources, found.failed) == (300, 0)
    assert found.verdict.is_clean, found.verdict


def put(key: bytes, value: bytes, revision: int, created: int = 0) -> Event:
    return Event(KeyValue(key, value, created or revision, revision))


def delete(key: bytes, revision: int) -> Event:
    return Event(KeyValue(key, b"", 0, revision), deleted=True)


def test_the_judge_sees_a_write_of_an_old_term() -> None:
    old, new = f"{ELECTION}/a".encode(), f"{ELECTION}/b".encode()
    spec = Spec("r")
    history = [
        [put(keys.resource("r"), Resource(spec, token=3).encode(), 10)],
        [delete(old, 11)],
        [put(keys.assignment("1", "r"), Assignment(spec, "1", 5).encode(), 12)],
        [put(keys.resource("r"), Resource(spec, token=3).encode(), 13, created=10)],
    ]
    assert _stale(history, {old: 3, new: 5}) == ["/crawler/resources/r by 3, led by 5"]


def test_the_judge_sees_what_was_created_twice_or_is_with_two_workers() -> None:
    spec = Spec("r")
    resource = Resource(spec, token=3).encode()
    one, two = keys.assignment("1", "r"), keys.assignment("2", "r")
    value = Assignment(spec, "1", 3).encode()
    moved = [[put(one, value, 1)], [delete(one, 2), put(two, value, 2)]]
    assert _doubled(moved) == []
    assert _doubled([[put(one, value, 1)], [put(two, value, 2)], [delete(one, 3)]]) == ["r"]
    key = keys.resource("r")
    again = [[put(key, resource, 1)], [delete(key, 2)], [put(key, resource, 3)]]
    assert _doubled(again) == ["r"]
    assert _doubled([[put(key, resource, 1)], [put(key, resource, 2, created=1)]]) == []


def test_a_run_without_an_answer_in_time_is_unclear() -> None:
    found = Found()
    errors = {
        "0 ConnectionResetError: reset by peer": True,
        "503 there is no leader at the moment": True,
        "0 timeout: timed out": False,
        "502 no JSON": False,
    }
    found.errors.update(dict.fromkeys(errors, 1))
    assert found.unclear == [error for error, is_clear in errors.items() if not is_clear]
    assert Told("r", "x", 0.0, 1.0, 200, "").is_done
