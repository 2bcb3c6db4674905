"""Simulated processes behave as real ones do: clocks, freezes, crashes, failures."""

import asyncio
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sim_loop import SimulationError
from tests.support.sim_process import SLEPT_BEFORE, Process, World

pytestmark = pytest.mark.sim


@pytest.fixture
def world() -> Iterator[World]:
    world = World(seed=1)
    yield world
    world.close()


async def idle(process: Process) -> None:
    await asyncio.get_running_loop().create_future()


def idling(world: World, *, rate: float = 1.0, offset: float = 0.0) -> Process:
    process = world.process("p", rate=rate, offset=offset)
    process.start(idle)
    return process


def test_a_fast_clock_makes_a_sleep_short(world: World) -> None:
    process = idling(world, rate=1.25, offset=100.0)
    world.complete(process, asyncio.sleep(10.0))
    assert world.now == 8.0
    assert process.now() == 110.0
    assert process.true_time(110.0) == 8.0


def test_boot_time_is_not_the_loops_time(world: World) -> None:
    process = idling(world)
    assert process.now() - process.loop.time() == SLEPT_BEFORE


def test_timers_of_several_processes_fire_in_the_order_of_true_time(world: World) -> None:
    seen: list[tuple[float, str]] = []

    async def tick(process: Process) -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            seen.append((round(world.now, 3), process.name))

    for name, rate in (("slow", 0.8), ("fast", 1.25)):
        world.process(name, rate=rate).start(tick)
    world.run(10.0)
    assert seen == [
        (0.8, "fast"), (1.25, "slow"), (1.6, "fast"), (2.4, "fast"), (2.5, "slow"), (3.75, "slow"),
    ]  # fmt: skip


def test_after_a_freeze_input_comes_before_overdue_timers(world: World) -> None:
    process = idling(world)
    seen: list[str] = []
    process.call(lambda: process.loop.call_later(1.0, seen.append, "timer"))
    process.freeze()
    world.after(2.0, process.call, seen.append, "input")
    world.after(3.0, process.thaw)
    world.run(2.5)
    assert seen == []
    world.run(1.0)
    assert seen == ["input", "timer"]


def test_a_process_frozen_inside_its_code_goes_on_where_it_stopped(world: World) -> None:
    process = idling(world)
    seen: list[str] = []

    def busy() -> None:
        process.loop.call_soon(seen.append, "first")
        process.loop.call_soon(process.freeze)
        process.loop.call_soon(seen.append, "second")

    process.call(busy)
    process.call(seen.append, "input")
    assert seen == ["first"]
    world.after(5.0, process.thaw)
    world.run(5.0)
    assert seen == ["first", "second", "input"]


def test_a_suspended_machine_stops_loop_time_and_not_boot_time(world: World) -> None:
    process = idling(world)
    task = process.spawn(asyncio.sleep(3.0))
    world.after(1.0, process.suspend)
    world.after(11.0, process.thaw)
    world.run_until(task.done, 100.0)
    assert world.now == 13.0
    assert process.now() == 13.0
    assert process.loop.time() == 3.0 - SLEPT_BEFORE


def test_a_crash_runs_no_clean_up_and_its_burial_is_silent(world: World) -> None:
    seen: list[str] = []

    async def careful(process: Process) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(idle(process))
                group.create_task(idle(process))
        finally:
            seen.append("cleaned up")
            await asyncio.sleep(1.0)

    process = world.process("p")
    process.start(careful)
    world.run(1.0)
    process.crash()
    world.run(10.0)
    assert seen == []
    assert not process.is_alive
    world.close()
    gc.collect()  # a complaint of the interpreter is an error here


def test_a_restart_is_a_new_life_on_the_same_clock(world: World) -> None:
    process = idling(world, offset=50.0)
    old = process.loop
    world.run(5.0)
    process.restart()
    world.run(5.0)
    assert (process.lives, process.now(), process.is_alive) == (2, 60.0, True)
    assert process.loop is not old


def test_a_failing_process_fails_the_simulation_and_names_the_seed(world: World) -> None:
    async def fail(process: Process) -> None:
        await asyncio.sleep(1.0)
        raise ValueError("broken")

    world.process("p").start(fail)
    with pytest.raises(SimulationError, match=r"p at 1\.0+: .*broken.*\n.*seed 1"):
        world.run(10.0)


def test_a_callback_that_fails_fails_the_simulation(world: World) -> None:
    process = idling(world)
    process.call(lambda: process.loop.call_later(1.0, lambda: 1 / 0))
    with pytest.raises(SimulationError, match="ZeroDivisionError"):
        world.run(10.0)


def test_a_process_that_spins_is_found(world: World) -> None:
    async def spin(process: Process) -> None:
        while True:  # noqa: ASYNC110 - this is the point
            await asyncio.sleep(0)

    with pytest.raises(SimulationError, match="spins"):
        world.process("p").start(spin)


def test_a_coroutine_that_never_ends_is_found(world: World) -> None:
    process = idling(world)
    with pytest.raises(SimulationError, match="still waiting"):
        world.complete(process, idle(process), limit=10.0)


def test_a_stopped_process_cleans_up(world: World) -> None:
    seen: list[float] = []

    async def careful(process: Process) -> None:
        try:
            await idle(process)
        finally:
            await asyncio.sleep(1.0)
            seen.append(world.now)

    process = world.process("p")
    process.start(careful)
    world.run(1.0)
    process.stop()
    world.run(5.0)
    assert seen == [2.0]
    assert not process.is_alive


def test_a_task_group_cancels_its_tasks_in_the_order_of_their_creation(world: World) -> None:
    seen: list[int] = []

    async def note(number: int) -> None:
        try:
            await asyncio.sleep(100.0)
        finally:
            seen.append(number)

    async def body() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(note(number))
            await asyncio.sleep(1.0)
            raise KeyError

    with pytest.raises(ExceptionGroup):
        world.complete(idling(world), body())
    assert sorted(seen) == list(range(50))
    again: list[int] = seen[:]
    seen.clear()
    other = World(seed=2)
    with pytest.raises(ExceptionGroup):
        other.complete(idling(other), body())
    other.close()
    assert seen == again


SAME_RUN = """
from tests.unit.test_sim_judge import Toy, rough_hours
sim = rough_hours(Toy, 0.1, 11)
print(sim.world.digest, sim.world.steps, *map(str, sim.history.intervals))
"""


def test_a_seed_replays_in_another_interpreter_with_other_hashes(
    pytestconfig: pytest.Config,
) -> None:
    def run(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SAME_RUN]
        ran = subprocess.run(
            command,
            cwd=Path(pytestconfig.rootpath),
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        return ran.stdout

    assert run("1") == run("2") != ""
