"""What written schedules have in common: who is on the stage, and which request is meant."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sidecar.core.keys import Layout
from sidecar.core.store import Put, Txn
from tests.support.sim_sidecar import SidecarConfig, SimSidecar
from tests.support.sim_troupe import Troupe, removes_candidate
from tests.support.sim_world import ELECTION, Simulation

LAYOUT = Layout(ELECTION)
TTL = 5.0
LED_WITHIN = TTL + 1.0


@contextmanager
def stage(
    count: int = 2, *, seed: int = 1, config: SidecarConfig | None = None, **options: Any
) -> Iterator[tuple[Simulation, Troupe, list[SimSidecar]]]:
    """Start sidecars one after the other, the first of them leads, all are well."""
    with Simulation(seed, **options) as sim:
        troupe = Troupe(sim, [config or SidecarConfig(TTL)] * count)
        for one in troupe.sidecars:
            one.start()
            sim.until(lambda one=one: one.state.is_registered, within=TTL)  # type: ignore[misc]
        sim.until(troupe.sidecars[0].is_leader, within=TTL)
        sim.run(2 * TTL)
        yield sim, troupe, troupe.sidecars


def creates(txn: object) -> bool:
    """Match a campaign."""
    return isinstance(txn, Txn) and any(
        isinstance(op, Put) and op.key.startswith(LAYOUT.candidates) for op in txn.then
    )


def deletes(txn: object) -> bool:
    """Match whatever removes a candidate's key: resign, handover, move, clean-up."""
    return removes_candidate(txn, LAYOUT)
