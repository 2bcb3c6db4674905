"""One browser and one etcd for all tests of the page; a team of sidecars for each."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import Team
from tests.page.browser import PATIENCE, Browser, missing_reason
from tests.support.binaries import BUILT_VERSION, available_versions, require_etcd
from tests.support.descent import nothing_left
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

PAGE_LOGS = "sidecars"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Return a browser; its processes must be gone in the end."""
    reason = missing_reason()
    if reason is not None:
        if os.environ.get("LEADER_SIDECAR_NO_SKIP"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("browser")
    with nothing_left(within=PATIENCE), Browser(folder) as started:
        yield started


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdCluster]:
    """Return an etcd with one member, of the newest version that there is."""
    version = next(iter(available_versions()), BUILT_VERSION)
    require_etcd(version)
    with EtcdCluster(EtcdOptions(version=version, no_fsync=True)) as cluster:
        yield cluster


@pytest.fixture
def team(
    browser: Browser, etcd: EtcdCluster, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Team]:
    """Return three sidecars, a, b and c, of which a leads; judged at the end."""
    name = request.node.name.removeprefix("test_")
    with Team(etcd.endpoints, tmp_path, election=f"/page/{name}") as made:
        made.start("a", "b", "c")
        yield made
        browser.open("about:blank")
        made.judge()
