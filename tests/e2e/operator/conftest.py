"""One API server and one etcd for elections for all of these tests; a namespace for each."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.operator.api_server import ApiServer, kinds
from tests.e2e.operator.shop import Shop
from tests.support.binaries import require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """Return an API server that knows Elections."""
    with ApiServer(tmp_path_factory.mktemp("api-server")) as made:
        made.must_apply(*kinds())
        made.kubectl("wait", "--for=condition=Established", "crd/elections.leader-sidecar.io")
        yield made


@pytest.fixture(scope="package")
def etcd() -> Iterator[EtcdCluster]:
    """Return the etcd of all elections."""
    require_etcd()
    with EtcdCluster(EtcdOptions(no_fsync=True)) as made:
        yield made


@pytest.fixture
def shop(
    server: ApiServer, etcd: EtcdCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Shop]:
    """Return a namespace of the test's own."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40]
    name = f"{words}-{uuid.uuid4().hex[:6]}"
    with Shop(server, etcd.endpoints[0], tmp_path, name) as made:
        yield made
