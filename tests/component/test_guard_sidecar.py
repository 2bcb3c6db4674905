"""What becomes of CMD when the sidecar itself is killed, frozen, or sent the terminal's Ctrl-C."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import boottime
from tests.support.descent import RUNAWAY, gone, nothing_left, words
from tests.support.procs import wait_until

# A sidecar in small: starts CMD, then renews its deadline for as long as it can.
SIDECAR = """
import asyncio, sys
from sidecar import boottime
from sidecar.guard import Guard, spawn_guard

async def main(handle, file, lease, *argv):
    async with Guard(handle) as guard, asyncio.TaskGroup() as tasks:
        deadline = boottime.now() + float(lease)
        pid = await guard.launch(argv, {}, deadline)
        while True:
            with open(file, "a") as told:
                told.write(f"{pid} {deadline!r} {guard._process.pid}\\n")
            await asyncio.sleep(float(lease) / 10)
            deadline = boottime.now() + float(lease)
            guard.extend(deadline)

asyncio.run(main(spawn_guard(), *sys.argv[1:]))
"""
# Stamps its file for as long as it lives.
STAMPER = """
import sys, time
while True:
    with open(sys.argv[1], "a") as file:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)!r}\\n")
    time.sleep(0.01)
"""
A_MINUTE = 60.0
LEASE = 3.0  # seconds; renewed ten times as often


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    with nothing_left():
        yield


@contextlib.contextmanager
def sidecar(folder: Path, lease: float, *argv: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own that is gone afterwards, its CMD too."""
    cmd = [sys.executable, "-S", "-c", *map(str, argv)]
    process = subprocess.Popen(
        [sys.executable, "-c", SIDECAR, str(folder / "told"), str(lease), *cmd],
        process_group=0,
        stderr=subprocess.DEVNULL,  # a sidecar that is interrupted says so at length
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: gone(*told(folder)[::2]), "CMD and the guard end with the sidecar")


def told(folder: Path) -> tuple[int, float, int]:
    """CMD's pid, its newest deadline that was certainly not taken back, the guard's pid."""
    pid, deadline, guard = words(folder / "told", 3)[-3:]
    return int(pid), float(deadline), int(guard)


def stamps(folder: Path) -> list[float]:
    return [float(word) for word in words(folder / "stamps")]


def test_cmd_and_its_runaways_die_with_a_sidecar_that_is_killed(tmp_path: Path) -> None:
    with sidecar(tmp_path, A_MINUTE, RUNAWAY, tmp_path / "pid", "stay") as process:
        pid, _, guard = told(tmp_path)
        (runaway,) = map(int, words(tmp_path / "pid"))
        process.kill()
        wait_until(lambda: gone(pid, runaway, guard), "all of them die")


def test_a_kill_of_the_sidecars_whole_group_spares_the_guard_its_duty(tmp_path: Path) -> None:
    with sidecar(tmp_path, A_MINUTE, RUNAWAY, tmp_path / "pid", "stay") as process:
        pid, _, guard = told(tmp_path)
        (runaway,) = map(int, words(tmp_path / "pid"))
        os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: gone(pid, runaway, guard), "all of them die")


def test_cmd_of_a_frozen_sidecar_dies_at_the_deadline_and_not_before(tmp_path: Path) -> None:
    with sidecar(tmp_path, LEASE, STAMPER, tmp_path / "stamps") as process:
        pid, *_ = told(tmp_path)
        stamps(tmp_path)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        _, deadline, _ = told(tmp_path)
        renewed_at_most = boottime.now() + LEASE
        wait_until(lambda: gone(pid), "CMD dies")
        assert boottime.now() >= deadline
        last = stamps(tmp_path)[-1]
        assert deadline - LEASE / 2 < last < renewed_at_most + LEASE / 2
        process.send_signal(signal.SIGCONT)


def test_cmd_of_a_sidecar_that_renews_outlives_its_first_deadline(tmp_path: Path) -> None:
    with sidecar(tmp_path, LEASE, STAMPER, tmp_path / "stamps"):
        pid, first, _ = told(tmp_path)
        wait_until(lambda: stamps(tmp_path)[-1] > first, "CMD lives on")
        assert not gone(pid)


def test_cmd_dies_with_a_guard_that_is_killed_while_the_sidecar_is_frozen(tmp_path: Path) -> None:
    with sidecar(tmp_path, A_MINUTE, STAMPER, tmp_path / "stamps") as process:
        pid, _, guard = told(tmp_path)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        os.kill(guard, signal.SIGKILL)
        wait_until(lambda: gone(pid), "CMD dies")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_sidecars_group_do_not_reach_cmd(
    tmp_path: Path, number: signal.Signals
) -> None:
    with sidecar(tmp_path, A_MINUTE, STAMPER, tmp_path / "stamps") as process:
        pid, _, guard = told(tmp_path)
        process.send_signal(signal.SIGSTOP)  # so that it cannot answer by ending CMD itself
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        os.killpg(process.pid, number)
        seen = len(stamps(tmp_path))
        wait_until(lambda: len(stamps(tmp_path)) > seen, "CMD works on")
        assert not gone(pid, guard)
