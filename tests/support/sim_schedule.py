"""Random schedules of faults and commands for simulated sidecars, and what they are judged by.

A schedule is drawn from its seed: how many sidecars, which TTL, what may befall them. It goes from
one episode of trouble to the next, with calm in between, in which somebody has to lead.
"""

import random
from dataclasses import dataclass

from tests.support.history import JudgementError
from tests.support.sim_loop import SimulationError
from tests.support.sim_network import FAIR, ROUGH, STORM, Weather
from tests.support.sim_sidecar import SidecarConfig
from tests.support.sim_troupe import DRIFT_BOUND, LEVERS, OUTSIDE, Troupe
from tests.support.sim_world import Simulation

_TTLS_LONG = 720


class RandomSchedule:
    """One seed's schedule.

    Attributes:
        troupe: whom it befalls; `sim` is the simulation.
        hours: how long it is by itself: the same number of terms of the lease for every TTL.
        led_within: seconds after the last trouble within which somebody has to lead.
    """

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"schedule {seed}")
        self.ttl = ttl = float(rng.choice([2, 3, 5, 5, 5, 10, 20, 30]))
        self.hours = _TTLS_LONG * ttl / 3600
        self.led_within = 2 * ttl + 8
        self.sim = Simulation(
            seed,
            members=rng.choice([1, 3, 3, 3, 5]),
            sweep=rng.choice([0.0, 0.0, 0.5]),
            excused_for=ttl * DRIFT_BOUND,
        )
        self.troupe = Troupe(self.sim, _drawn_configs(rng, ttl))
        self._weathers: tuple[Weather, ...] = rng.choice([(FAIR,), (ROUGH,), (FAIR, ROUGH, STORM)])
        self._levers = (*LEVERS, *OUTSIDE) if rng.random() < 0.4 else LEVERS

    def run(self, hours: float = 0.0) -> None:
        """Go through episodes until so many simulated hours have passed (0: its own).

        Raises:
            JudgementError: a promise is broken; says which, with the trace.
            SimulationError: a process failed.
        """
        with self.sim as sim:
            for one in self.troupe.sidecars:
                one.start()
                sim.run(sim.world.rng.uniform(0, 1))
            while sim.now < (hours or self.hours) * 3600:
                self._episode()
                sim.run(sim.world.rng.uniform(4, 12) * self.ttl + 20)
                self.troupe.judge(self.led_within)
                self.troupe.replace_the_idle()
                sim.run(self.ttl + 10)

    def _episode(self) -> None:
        sim, rng = self.sim, self.sim.world.rng
        sim.history.trouble_begins("an episode")
        self.troupe.disturb()
        sim.set_weather(rng.choice(self._weathers))
        for _ in range(rng.choice([1, 1, 2, 2, 3, 5, 8])):
            lever = rng.choice(self._levers)
            leading = [one for one in self.troupe.sidecars if one.is_leader()]
            one = rng.choice(leading if leading and rng.random() < 0.5 else self.troupe.sidecars)
            span = rng.choice([0.3, 1.0, 2.5]) * self.ttl * rng.random()
            self.troupe.pull(lever, one, span, rng.random())
            sim.run(rng.choice([0.02, 0.3, 1.0, 2.0]) * self.ttl * rng.random())
        sim.run(2.5 * self.ttl)
        self.troupe.calm()
        sim.history.trouble_ends("an episode")


def _drawn_configs(rng: random.Random, ttl: float) -> list[SidecarConfig]:
    has_priorities, drain = rng.random() < 0.3, rng.choice([0.0, 0.0, 0.5, 2.0])
    return [
        SidecarConfig(
            ttl, drain=drain, priority=rng.choice([50, 100, 200]) if has_priorities else 100
        )
        for _ in range(rng.choice([1, 2, 3, 3, 3, 4, 5]))
    ]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed; `error` is empty when every promise was kept."""

    seed: int
    hours: float
    terms: int
    faults: int
    carried_out: int
    led_for: float
    digest: int
    error: str = ""

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.hours:.2f} h, {self.terms} terms, {self.faults} faults, "
            f"{self.carried_out} commands carried out, led {self.led_for / self.hours / 36:.1f} %"
        )


def run_seed(seed: int, hours: float = 0.0) -> Outcome:
    """Run one seed's schedule (0 hours: for as long as it is by itself)."""
    schedule, error = RandomSchedule(seed), ""
    try:
        schedule.run(hours)
    except (JudgementError, SimulationError) as exc:
        error = f"{exc}\nreplay: {replay_command(seed, hours)}"
    sim, troupe = schedule.sim, schedule.troupe
    return Outcome(
        seed,
        sim.now / 3600,
        sim.history.terms,
        troupe.faults,
        troupe.carried_out,
        sim.history.led_for(),
        sim.world.digest,
        error,
    )


def replay_command(seed: int, hours: float) -> str:
    """Return the command that runs exactly this again."""
    return f"python -m tests.sim.long --seed {seed}" + (f" --hours {hours:g}" if hours else "")
