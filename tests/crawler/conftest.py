"""One etcd for the tests of a module, and a crew of Masters and Workers for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crawler.crew import Crew
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions


@pytest.fixture(scope="module")
def crew_etcd() -> Iterator[EtcdCluster]:
    """Return an etcd with one member."""
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


@pytest.fixture
def crew(crew_etcd: EtcdCluster, tmp_path: Path) -> Iterator[Crew]:
    """Return an empty crew, all of which is gone afterwards."""
    with Crew(crew_etcd, tmp_path) as made:
        yield made
