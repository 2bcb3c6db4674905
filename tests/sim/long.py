"""Simulated schedules for as long as one likes: `python -m tests.sim.long`, or `make sim-long`.

Each seed is a schedule of its own (`tests.support.sim_schedule`). The first one that breaks a
promise ends the run with exit code 1, its trace, and the command that replays it exactly.
"""

import argparse
import itertools
import logging
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from multiprocessing.pool import Pool

from tests.support.sim_schedule import Outcome, run_seed

HOURS = 1_000.0
FIRST_SEED = 1_000_000
"""Seeds that `make test` does not use."""


def main(arguments: list[str] | None = None) -> int:
    """Run the schedules that the arguments name; return the exit code."""
    options = _parser().parse_args(arguments)
    logging.disable()
    if options.seed is not None:
        return _report([run_seed(options.seed, options.hours or 0.0)])
    with multiprocessing.get_context("spawn").Pool(options.jobs, logging.disable) as pool:
        return _report(_until(options.hours or HOURS, options.first, options.jobs, pool))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.long", description=__doc__)
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument(
        "--hours",
        type=float,
        help=f"simulated hours: in all (default {HOURS:g}), or with --seed of that one",
    )
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first of the seeds")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)"
    )
    return parser


def _until(hours: float, first: int, jobs: int, pool: Pool) -> Iterator[Outcome]:
    """Yield one seed after the other, in their order, until they make so many hours."""
    seeds = itertools.count(first)
    under_way = deque(pool.apply_async(run_seed, (next(seeds),)) for _ in range(2 * jobs))
    passed = 0.0
    while passed < hours:
        outcome = under_way.popleft().get()
        under_way.append(pool.apply_async(run_seed, (next(seeds),)))
        passed += outcome.hours
        yield outcome


def _report(outcomes: Iterable[Outcome]) -> int:
    done: list[Outcome] = []
    for outcome in outcomes:
        done.append(outcome)
        print(outcome, flush=True)
        if outcome.error:
            print(f"seed {outcome.seed} broke a promise:\n{outcome.error}", file=sys.stderr)
            return 1
    hours = sum(outcome.hours for outcome in done)
    print(
        f"seeds {done[0].seed} to {done[-1].seed}: {hours:.0f} hours simulated, "
        f"{sum(outcome.terms for outcome in done)} terms, "
        f"{sum(outcome.faults for outcome in done)} faults, "
        f"{sum(outcome.carried_out for outcome in done)} commands carried out, "
        f"led {sum(outcome.led_for for outcome in done) / hours / 36:.1f} % of the time; "
        "no promise broken"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
