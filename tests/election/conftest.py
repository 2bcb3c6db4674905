"""One simulated world per test, judged at its end."""

from collections.abc import Iterator

import pytest

from tests.election.support import EXACT
from tests.support.sim_world import Simulation


@pytest.fixture
def sim() -> Iterator[Simulation]:
    """Return a world in which every message takes one millisecond."""
    with Simulation(seed=1, weather=EXACT) as made:
        yield made
        made.judge()
