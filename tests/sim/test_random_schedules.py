"""Random schedules of faults and commands: more than a hundred simulated hours in each run.

A seed that goes red prints the command that replays it exactly. `make sim-long` runs more of them.
"""

import logging
import multiprocessing
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sim import long
from tests.sim.scenes import TTL
from tests.support.history import JudgementError
from tests.support.sim_network import FAIR, ROUGH, Weather
from tests.support.sim_schedule import Outcome, run_seed
from tests.support.sim_sidecar import SidecarConfig
from tests.support.sim_troupe import LEVERS, OUTSIDE, Lever, Troupe
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim

SEEDS = range(60)
LEAST_HOURS = 100.0
JOBS = min(2, os.cpu_count() or 1)


@pytest.mark.timeout(1800)
def test_a_hundred_hours_of_random_faults_break_no_promise() -> None:
    with multiprocessing.get_context("spawn").Pool(JOBS, logging.disable) as pool:
        outcomes = pool.map(run_seed, SEEDS, chunksize=1)
    sys.stdout.writelines(f"{outcome}\n" for outcome in outcomes)
    assert [outcome.error for outcome in outcomes if outcome.error] == []
    assert sum(outcome.hours for outcome in outcomes) >= LEAST_HOURS
    assert sum(outcome.carried_out for outcome in outcomes) > 100
    assert all(outcome.terms for outcome in outcomes)


BEFORE_A_RESTORE: tuple[Lever, ...] = (
    Troupe.restart, Troupe.recreate, Troupe.crash, Troupe.stand_back, Troupe.ask, Troupe.delete_key,
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_restore_with_bumped_revisions_brings_back_somebody_leads_again(
    seed: int,
) -> None:
    rng = random.Random(seed)
    with Simulation(seed, excused_for=2 * TTL) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL)] * rng.choice([2, 3, 4]))
        for one in troupe.sidecars:
            one.start()
        for _ in range(12):
            sim.history.trouble_begins("a restore")
            troupe.disturb()
            for _ in range(rng.randrange(4)):
                lever, one = rng.choice(BEFORE_A_RESTORE), rng.choice(troupe.sidecars)
                troupe.pull(lever, one, rng.random() * 2 * TTL, rng.random())
                sim.run(rng.random() * TTL)
            back = rng.randrange(9)
            troupe.restore(max(sim.etcd.revision - back, 1), is_new_cluster=rng.random() < 0.5)
            sim.run(2 * TTL)
            troupe.calm()
            sim.history.trouble_ends("a restore")
            sim.run(8 * TTL)
            troupe.judge(3 * TTL)
            troupe.replace_the_idle()
            sim.run(2 * TTL)


def test_a_seed_replays_exactly_in_another_process() -> None:
    def outcome_of(hash_seed: str) -> str:
        code = "from tests.support.sim_schedule import run_seed; print(repr(run_seed(7, 0.1)))"
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert outcome_of("1") == outcome_of("2")
    assert outcome_of("1").startswith("Outcome(seed=7, ")


levers = st.tuples(
    st.sampled_from([*LEVERS[:-2], *OUTSIDE]),
    st.integers(0, 2),
    st.floats(0, 2.5 * TTL),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from([0.0, 0.001, 0.003, 0.2, 1.0, 3.0, 7.0]),
)


@pytest.mark.timeout(600)
@settings(max_examples=300)
@given(
    count=st.integers(1, 3),
    weather=st.sampled_from([FAIR, ROUGH]),
    drain=st.sampled_from([0.0, 1.0]),
    schedule=st.lists(levers, max_size=12),
    seed=st.integers(0, 3),
)
def test_no_list_of_commands_breaks_a_promise(
    count: int,
    weather: Weather,
    drain: float,
    schedule: list[tuple[Lever, int, float, float, float]],
    seed: int,
) -> None:
    with Simulation(seed, excused_for=TTL * 1.06) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL, drain=drain)] * count)
        for one in troupe.sidecars:
            one.start()
        sim.run(2.0)
        sim.history.trouble_begins("a schedule")
        sim.set_weather(weather)
        for lever, index, span, pick, pause in schedule:
            troupe.pull(lever, troupe.sidecars[index % count], span, pick)
            sim.run(pause)
        sim.run(3 * TTL)
        troupe.calm()
        sim.history.trouble_ends("a schedule")
        sim.run(6 * TTL)
        troupe.judge(2 * TTL + 8)


def test_the_long_run_tells_what_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    assert long.main(["--seed", "7", "--hours", "0.05"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("seed 7: 0.0")
    assert "no promise broken" in told


def test_the_long_run_ends_with_the_first_red_seed_and_says_how_to_replay_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(troupe: Troupe, led_within: float) -> None:
        raise JudgementError("two leaders")

    monkeypatch.setattr(Troupe, "judge", judge)
    assert long.main(["--seed", "7", "--hours", "0.05"]) == 1
    told = capsys.readouterr().err
    assert "seed 7 broke a promise:\ntwo leaders" in told
    assert told.endswith("replay: python -m tests.sim.long --seed 7 --hours 0.05\n")


def test_an_outcome_says_what_happened() -> None:
    outcome = Outcome(3, 2.0, 5, 40, 6, led_for=7128.0, digest=1)
    assert str(outcome) == (
        "seed 3: 2.00 h, 5 terms, 40 faults, 6 commands carried out, led 99.0 %"
    )
