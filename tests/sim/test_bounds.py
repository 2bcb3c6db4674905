"""How long nobody leads: after a crash, with and without an election in etcd, and a clean stop."""

import pytest

from sidecar.core.state import Role
from tests.sim.scenes import TTL, stage
from tests.support.history import JudgementError
from tests.support.sim_sidecar import SidecarConfig
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

SEEDS = range(25)
SWEEP = 0.5
"""Seconds between etcd's looks for leases that have ended."""

ELECTION_TIMEOUT = 1.0
"""Seconds that etcd takes to elect, and adds to each lease then."""


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_crash_of_the_leader_another_leads_within_ttl_and_a_second(seed: int) -> None:
    with stage(3, seed=seed, sweep=SWEEP) as (sim, _, (leader, *_)):
        sim.run(sim.world.rng.uniform(0, TTL))
        leader.crash()
        sim.run(3 * TTL)
        sim.judge(led_within=TTL + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blow_that_takes_etcds_leader_too_costs_three_seconds_more(seed: int) -> None:
    with stage(3, seed=seed, sweep=SWEEP) as (sim, _, (leader, *_)):
        sim.run(sim.world.rng.uniform(0, TTL))
        sim.cluster.elect(
            deposed_for=2 * TTL, leaderless_for=2 * ELECTION_TIMEOUT, extension=ELECTION_TIMEOUT
        )
        leader.crash()
        sim.run(4 * TTL)
        sim.judge(led_within=TTL + 4)


@pytest.mark.parametrize("drain", [0.0, 2.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_clean_stop_leaves_no_gap_but_the_drain_time(seed: int, drain: float) -> None:
    with stage(3, seed=seed, config=SidecarConfig(TTL, drain=drain)) as (sim, _, (leader, *_)):
        sim.run(sim.world.rng.uniform(0, TTL))
        leader.stop()
        sim.run(3 * TTL)
        sim.judge(led_within=drain * 1.03 + 0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_restart_within_the_ttl_resumes_the_term(seed: int) -> None:
    with stage(3, seed=seed, sweep=SWEEP) as (sim, _, (leader, *_)):
        token = leader.state.token
        sim.run(sim.world.rng.uniform(0, TTL))
        leader.crash()
        sim.run(sim.world.rng.uniform(0, 0.7 * TTL))
        leader.start()
        sim.run(3 * TTL)
        assert (leader.state.role, leader.state.token) == (Role.LEADER, token)
        assert sim.history.terms == 1
        sim.judge(led_within=TTL)


def test_a_gap_of_one_millisecond_too_many_is_found() -> None:
    with stage(3, seed=1) as (sim, _, (leader, *_)):
        leader.stop()
        sim.run(3 * TTL)
        with pytest.raises(JudgementError, match="nobody led in"):
            sim.judge(led_within=gap(sim) - 0.001)
        sim.judge(led_within=gap(sim))


def gap(sim: Simulation) -> float:
    """Return the longest time without a leader since the last trouble."""
    return max(end - start for start, end in sim.history.leaderless())
