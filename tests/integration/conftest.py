"""Clusters shared by the tests of a module, and a team of sidecars that is judged at the end."""

import os
import re
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import Team
from tests.support.binaries import BUILT_VERSION, require_etcd
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions


def version_of(request: pytest.FixtureRequest) -> str:
    """Return the etcd version that a test was parametrised with, or the newest."""
    version: str = getattr(request, "param", BUILT_VERSION)
    require_etcd(version)
    return version


@pytest.fixture(scope="module")
def one_member(request: pytest.FixtureRequest) -> Iterator[EtcdCluster]:
    """Return an etcd with one member."""
    with EtcdCluster(EtcdOptions(version=version_of(request), no_fsync=True)) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three_members(request: pytest.FixtureRequest) -> Iterator[EtcdCluster]:
    """Return an etcd with three members; `cluster` mends what a test broke."""
    options = EtcdOptions(version=version_of(request), members=3, no_fsync=True)
    with EtcdCluster(options) as cluster:
        yield cluster


@pytest.fixture
def cluster(three_members: EtcdCluster) -> Iterator[EtcdCluster]:
    """Return three members that run, and leave them running."""
    yield three_members
    for member in three_members.members:
        if member.running:
            member.resume()
        else:
            member.child.start()
    three_members.wait_healthy()


@pytest.fixture
def election(request: pytest.FixtureRequest) -> str:
    """Return a name that no other test of the module uses."""
    return "/integration/" + re.sub(r"\W+", "-", request.node.name).strip("-")


@pytest.fixture
def team(one_member: EtcdCluster, tmp_path: Path, election: str) -> Iterator[Team]:
    """Return an empty team on an etcd with one member, judged at the end."""
    with Team(one_member.endpoints, tmp_path, election=election) as made:
        yield made
        made.judge()


@pytest.fixture
def team3(cluster: EtcdCluster, tmp_path: Path, election: str) -> Iterator[Team]:
    """Return an empty team on an etcd with three members, judged at the end."""
    with Team(cluster.endpoints, tmp_path, election=election) as made:
        yield made
        made.judge()


class Disk:
    """A file system of 128 KiB, which can be filled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filling = path / "filling"

    def fill(self) -> None:
        """Leave no room for a single byte more."""
        with self._filling.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                return

    def clear(self) -> None:
        """Give the room back."""
        self._filling.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Return a small disk that is mounted for the test; needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(path)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Show what the sidecars logged when a test fails."""
    if call.excinfo is not None and call.excinfo.errisinstance(AssertionError):
        for made in getattr(item, "funcargs", {}).values():
            if isinstance(made, Team):
                item.add_report_section(call.when, "sidecars", made.logs())
    return (yield)
