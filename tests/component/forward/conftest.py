"""Every test of the forwarder runs on both event loops that the sidecar may run on."""

from collections.abc import AsyncIterator, Mapping

import pytest

from tests.component.forward.loops import LOOPS, Loop
from tests.support.forwarding import Program, programs
from tests.support.procs import LOOPBACK


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Loop]:
    """Run each asynchronous test once on each loop."""
    return LOOPS


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    """Return a program on this machine."""
    with programs(LOOPBACK) as (made,):
        yield made
