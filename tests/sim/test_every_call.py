"""Every call of the store is a place to be hit at: frozen, killed, or left without an answer."""

from collections.abc import Callable
from typing import Any

import pytest

from sidecar.errors import StoreFull
from tests.sim.scenes import TTL
from tests.support.history import JudgementError
from tests.support.sim_network import Fate
from tests.support.sim_process import Process
from tests.support.sim_sidecar import SidecarConfig, SimSidecar
from tests.support.sim_troupe import Troupe
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


def a_day(hit: Callable[[Simulation, SimSidecar], None], at: int) -> int:
    """Hit the first sidecar at its `at`th call of the store; return how many calls there were."""
    with Simulation(at) as sim:
        troupe = Troupe(sim, [SidecarConfig(TTL, drain=0.1)] * 2)
        one, _ = troupe.sidecars
        calls = 0
        fate = sim.network.fate

        def counted(process: Process, kind: str, argument: Any) -> Fate:
            nonlocal calls
            if process is one.process:
                calls += 1
                if calls == at:
                    hit(sim, one)
            return fate(process, kind, argument)

        sim.network.fate = counted  # type: ignore[method-assign]
        troupe.sidecars[0].start()
        sim.run(1.0)
        troupe.sidecars[1].start()
        sim.run(1.0)
        troupe.command(lambda commands: commands.resign())
        sim.run(1.5)
        troupe.command(lambda commands: commands.handover("a"))
        sim.run(1.5)
        one.stand_back()
        sim.run(1.5)
        one.stand_again()
        sim.run(6 * TTL)
        troupe.calm()
        sim.run(4 * TTL)
        troupe.judge(2 * TTL + 3)
    return calls


def _freeze(sim: Simulation, one: SimSidecar) -> None:
    sim.freeze(one.process, 2 * TTL)


def _freeze_in_the_answer(sim: Simulation, one: SimSidecar) -> None:
    sim.later(0.0035, sim.freeze, one.process, 2 * TTL)


def _crash(sim: Simulation, one: SimSidecar) -> None:
    sim.later(0.0, one.restart)


def _crash_for_long(sim: Simulation, one: SimSidecar) -> None:
    sim.later(0.004, one.crash)
    sim.later(2 * TTL, one.start)


def _lose(fate: Fate) -> Callable[[Simulation, SimSidecar], None]:
    def lose(sim: Simulation, one: SimSidecar) -> None:
        for kind in ("grant", "revoke", "prove", "txn", "read", "watch"):
            sim.destine(one.process, kind, fate)

    return lose


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "hit",
    [
        _freeze,
        _freeze_in_the_answer,
        _crash,
        _crash_for_long,
        _lose(Fate(loses_reply=True)),
        _lose(Fate(loses_request=True)),
        _lose(Fate(request_delay=3.0)),
        _lose(Fate(duplicate_after=0.7)),
        _lose(Fate(error=StoreFull("no space"))),
    ],
    ids=[
        "freeze", "freeze in the answer", "crash", "crash for long", "replies lost",
        "requests lost", "requests late", "requests doubled", "refused",
    ],
)  # fmt: skip
def test_whatever_hits_it_at_any_call_no_promise_breaks(
    hit: Callable[[Simulation, SimSidecar], None],
) -> None:
    calls = a_day(hit, at=-1)
    assert calls > 50
    for at in range(1, 60):
        try:
            a_day(hit, at)
        except JudgementError as error:
            raise JudgementError(f"hit at call {at}: {error}") from error
