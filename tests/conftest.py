"""What every test gets: patient hypothesis, no task left behind."""

import asyncio
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_asyncio

# A slow machine is no failure: no deadline per example, no complaint about slow generation.
hypothesis.settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    print_blob=True,
)
hypothesis.settings.load_profile("project")

SETTLE = 2.0  # seconds for tasks that are already on their way out, as after a close


@pytest.fixture(autouse=True)
def no_task_is_left_behind(request: pytest.FixtureRequest) -> None:
    """Fail an asynchronous test, or its fixtures, when tasks outlive them on the test's loop."""
    if request.node.get_closest_marker("asyncio") is not None:
        request.getfixturevalue("_tasks_end_with_the_test")


@pytest_asyncio.fixture
async def _tasks_end_with_the_test() -> AsyncIterator[None]:
    # Set up before the test's own fixtures and torn down after them, on the same loop.
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=SETTLE)
    if left:
        names = ", ".join(sorted(f"{task.get_name()} ({task.get_coro()})" for task in left))
        pytest.fail(f"tasks left behind: {names}", pytrace=False)
