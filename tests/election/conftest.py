"""One simulated world per test, judged at its end; a real etcd per module."""

from collections.abc import Iterator

import pytest

from tests.election.support import EXACT
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.sim_world import Simulation


@pytest.fixture
def sim() -> Iterator[Simulation]:
    """Return a world in which every message takes one millisecond."""
    with Simulation(seed=1, weather=EXACT) as made:
        yield made
        made.judge()


@pytest.fixture(scope="module")
def cluster() -> Iterator[EtcdCluster]:
    """Return an etcd with three members."""
    require_etcd()
    with EtcdCluster(EtcdOptions(members=3, no_fsync=True)) as made:
        yield made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Return an election's name that no other test uses."""
    return f"/parity/{request.node.name}"
