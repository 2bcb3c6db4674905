"""One cluster for a run, one release for each module, and what to look at after a failure."""

import os
import re
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.e2e.support.cluster import Cluster, cluster
from tests.e2e.support.collecting import collect
from tests.e2e.support.engine import NAME, UnfitMachineError
from tests.e2e.support.operator import provide_operator
from tests.e2e.support.release import Release, released
from tests.e2e.support.sharing import nodes

VALUES = Path(__file__).with_name("values.yaml")
_LONG = ("test_statefulset_rollout", "test_operator", "test_etcd_scales", "test_lifecycle")
_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def kind_cluster() -> Iterator[Cluster]:
    """Return the cluster of this run; gone after it, also when the run is told to stop."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        with cluster(VALUES) as made:
            yield made
    except UnfitMachineError as unfit:
        if os.environ.get("E2E_UNFIT") == "skip":
            pytest.skip(f"no cluster here: {unfit}")
        pytest.fail(f"no cluster here: {unfit}", pytrace=False)


@pytest.fixture(scope="module")
def release(request: pytest.FixtureRequest, kind_cluster: Cluster) -> Iterator[Release]:
    """Return the release of a module, with the values that the module's `VALUES` says.

    A module that is `ALONE` takes nodes or the API server away: no other has a release meanwhile.
    """
    module = request.module.__name__.rpartition(".")[2]
    # On somebody else's cluster a shorter name may be taken, and what has it is deleted first.
    namespace = re.sub(r"[^a-z0-9]+", "-", f"{NAME}-{module.removeprefix('test_')}")
    made = Release(kind_cluster, namespace, values=dict(getattr(request.module, "VALUES", {})))
    with nodes(alone=getattr(request.module, "ALONE", False)):
        if made.values.get("operator", {}).get("enabled"):
            provide_operator(kind_cluster)
        with released(kind_cluster, namespace, made):
            yield made


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return what takes a measured figure, in words: it is shown at the end of the run."""
    return lambda told: request.node.user_properties.append(("measured", told))


@pytest.fixture(autouse=True)
def what_failed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect what there is to look at when a test fails, before its release goes."""
    yield
    if request.node.stash.get(_FAILED, False) and "release" in request.fixturenames:
        release = request.getfixturevalue("release")
        collect(release.cluster.kubectl, release.namespace, request.node.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the shortest way through, and end with what needs the cluster alone.

    The tests of the operator that need no cluster are done by one worker while another makes it.
    Long modules come before short ones: no worker shall wait for another's long one at the end.
    """

    def order(item: pytest.Item) -> int:
        if item.path.stem == "test_smoke":
            return 0
        if item.path.parent.name == "operator":
            return 1
        if getattr(item.module, "ALONE", False):  # type: ignore[attr-defined]
            return 4
        return 2 if item.path.stem in _LONG else 3

    items.sort(key=order)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have measured."""
    for report in terminalreporter.getreports("passed"):
        for name, told in report.user_properties:
            if name == "measured":
                terminalreporter.write_line(f"measured: {told}")


def _stop(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
