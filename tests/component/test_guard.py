"""The guard of `exec`: CMD and all its descendants end in time, whatever becomes of the sidecar."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from sidecar import boottime
from sidecar.guard import Guard, GuardLost, LaunchFailed, spawn_guard
from sidecar.guard_process import descendants
from tests.support.descent import RUNAWAY, gone, nothing_left, state, words
from tests.support.procs import wait_until

AN_HOUR = 3600.0
PATIENCE = 60.0  # seconds; a bound for a slow machine, not an expectation
# Writes its pid, then what it was told, then waits; every signal is written down.
LISTENER = """
import os, signal, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(word):
    # One call of the kernel: a signal's handler may come in the middle of a buffered write.
    os.write(file, f"{word}\\n".encode())
def heard(number, _):
    say(signal.Signals(number).name)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, heard)
say(os.getpid())
if sys.argv[2:] == ["family"] and os.fork() == 0:
    say(os.getpid())
while True:
    signal.pause()
"""


@pytest_asyncio.fixture
async def guard(no_process_is_left: None) -> AsyncIterator[Guard]:
    async with asyncio.timeout(PATIENCE):
        started = await Guard.start()
    yield started
    async with asyncio.timeout(PATIENCE):
        await started.close()


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    with nothing_left():
        yield


def open_descriptors() -> list[int]:
    return sorted(int(path.name) for path in Path("/proc/self/fd").iterdir())


def in_an_hour() -> float:
    return boottime.now() + AN_HOUR


def python(program: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", program, *map(str, arguments)]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
async def test_the_exit_code_is_passed_on(guard: Guard, code: int) -> None:
    await guard.launch(["sh", "-c", f"exit {code}"], {}, in_an_hour())
    assert await guard.exited() == code
    await guard.reaped()


async def test_an_end_by_a_signal_is_told_as_shells_do(guard: Guard) -> None:
    await guard.launch(["sh", "-c", "kill -USR2 $$"], {}, in_an_hour())
    assert await guard.exited() == 128 + signal.SIGUSR2


async def test_variables_are_added_to_the_environment(
    guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = 'printf "%s %s " "$TOKEN" "$HOME" > "$OUT"'
    env = {"TOKEN": "8123", "OUT": str(tmp_path / "out")}
    await guard.launch(["sh", "-c", script], env, in_an_hour())
    assert await guard.exited() == 0
    assert words(tmp_path / "out", 2) == ["8123", os.environ["HOME"]]


async def test_arguments_that_are_not_utf8_arrive(guard: Guard, tmp_path: Path) -> None:
    program = "import os, sys; open(os.fsencode(sys.argv[1]), 'wb').write(os.fsencode(sys.argv[2]))"
    odd = os.fsdecode(b"\xff\n")
    await guard.launch(python(program, tmp_path / "out", odd), {}, in_an_hour())
    assert await guard.exited() == 0
    assert (tmp_path / "out").read_bytes() == os.fsencode(odd)


async def test_cmd_leads_a_process_group_of_its_own(guard: Guard) -> None:
    pid = await guard.launch(["sleep", "3600"], {}, in_an_hour())
    assert os.getpgid(pid) == pid == guard.pid


async def test_cmd_does_not_ignore_what_the_guard_and_python_ignore(
    guard: Guard, tmp_path: Path
) -> None:
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGPIPE, signal.SIGXFSZ):
        assert not await ignored_by_cmd(guard, number, tmp_path / number.name)


async def test_cmd_goes_on_ignoring_what_the_sidecar_was_told_to_ignore(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        async with asyncio.timeout(PATIENCE), await Guard.start() as guard:
            assert await ignored_by_cmd(guard, signal.SIGHUP, tmp_path / "out")
    finally:
        signal.signal(signal.SIGHUP, before)


async def ignored_by_cmd(guard: Guard, number: signal.Signals, out: Path) -> bool:
    await guard.launch(["sh", "-c", f"grep SigIgn: /proc/self/status > {out}"], {}, in_an_hour())
    await guard.reaped()
    return bool(int(words(out, 2)[1], 16) >> (number - 1) & 1)


async def test_cmd_inherits_no_descriptor_but_the_standard_streams(
    guard: Guard, tmp_path: Path
) -> None:
    await guard.launch(["sh", "-c", f"ls /proc/self/fd > {tmp_path}/fds"], {}, in_an_hour())
    assert await guard.exited() == 0
    assert words(tmp_path / "fds", 4) == ["0", "1", "2", "3"]  # 3: the directory that ls reads


@pytest.mark.parametrize(
    ("argv", "code", "why"),
    [
        (["no-such-program"], 127, "No such file or directory"),
        (["/no/such/program"], 127, "No such file or directory"),
        (["/etc/passwd"], 126, "Permission denied"),
        (["/"], 126, "Permission denied"),
        (["true", "a\0b"], 126, "null"),
    ],
)
async def test_a_command_that_cannot_be_started_is_a_clear_error(
    guard: Guard, argv: list[str], code: int, why: str
) -> None:
    with pytest.raises(LaunchFailed, match=f"cannot start '{argv[0]}': .*{why}") as failed:
        await guard.launch(argv, {}, in_an_hour())
    assert failed.value.exit_code == code
    await guard.launch(["true"], {}, in_an_hour())  # and the guard goes on
    assert await guard.exited() == 0


async def test_a_program_that_is_no_program_is_a_clear_error(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("neither ELF nor #!\n")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(LaunchFailed, match="Exec format error") as failed:
        await guard.launch([str(tmp_path / "text")], {}, in_an_hour())
    assert failed.value.exit_code == 126


async def test_nothing_is_started_after_the_deadline(guard: Guard, tmp_path: Path) -> None:
    with pytest.raises(LaunchFailed, match="the deadline has passed"):
        await guard.launch(["touch", str(tmp_path / "ran")], {}, boottime.now())
    assert not (tmp_path / "ran").exists()


async def test_a_second_cmd_waits_for_the_first_to_be_reaped(guard: Guard) -> None:
    await guard.launch(["sleep", "3600"], {}, in_an_hour())
    with pytest.raises(RuntimeError, match="has not been reaped"):
        await guard.launch(["true"], {}, in_an_hour())
    guard.kill()
    await guard.reaped()
    await guard.launch(["true"], {}, in_an_hour())
    assert await guard.exited() == 0


async def test_misuse_is_refused(guard: Guard) -> None:
    with pytest.raises(ValueError, match="no program"):
        await guard.launch([], {}, in_an_hour())
    with pytest.raises(RuntimeError, match="launched nothing"):
        await guard.exited()
    with pytest.raises(RuntimeError, match="launched nothing"):
        await guard.reaped()
    with pytest.raises(ValueError, match="999"):
        guard.signal(999)


async def test_cmd_dies_at_the_deadline_and_not_before(guard: Guard) -> None:
    deadline = boottime.now() + 1.5
    pid = await guard.launch(["sleep", "3600"], {}, deadline)
    assert await guard.exited() == 128 + signal.SIGKILL
    assert boottime.now() >= deadline
    await guard.reaped()
    assert state(pid) == "X"


async def test_the_guard_wakes_at_the_deadline_itself(guard: Guard) -> None:
    """Its look every second would come half a second late; one try in time is proof enough."""
    late: list[float] = []
    while not late or min(late) > 0.3:
        deadline = boottime.now() + 1.5
        await guard.launch(["sleep", "3600"], {}, deadline)
        await guard.exited()
        late.append(boottime.now() - deadline)
        await guard.reaped()
        assert len(late) < 5, f"killed so many seconds late: {late}"


async def test_a_cmd_that_ignores_sigterm_dies_at_its_deadline(
    guard: Guard, tmp_path: Path
) -> None:
    await guard.launch(python(LISTENER, tmp_path / "heard", "family"), {}, in_an_hour())
    family = [int(pid) for pid in words(tmp_path / "heard", 2)]
    guard.terminate()
    words(tmp_path / "heard", 4)
    assert not any(gone(pid) for pid in family)
    deadline = boottime.now() + 0.2
    guard.extend(deadline)
    async with asyncio.timeout(PATIENCE):
        assert await guard.exited() == 128 + signal.SIGKILL
        assert boottime.now() >= deadline
        await guard.reaped()
    assert [state(pid) for pid in family] == ["X", "X"]


async def test_a_later_deadline_lets_cmd_live_on(guard: Guard) -> None:
    first = boottime.now() + 2.0
    await guard.launch(["sleep", "3600"], {}, first)
    later = first + 0.5
    guard.extend(later)
    assert await guard.exited() == 128 + signal.SIGKILL
    assert boottime.now() >= later


async def test_a_program_that_ends_by_itself_takes_no_notice_of_old_deadlines(
    guard: Guard,
) -> None:
    deadline = boottime.now() + PATIENCE
    await guard.launch(["true"], {}, deadline)
    await guard.reaped()
    await guard.launch(["sh", "-c", "exit 3"], {}, in_an_hour())
    assert await guard.exited() == 3


async def test_terminate_reaches_the_whole_group(guard: Guard, tmp_path: Path) -> None:
    pid = await guard.launch(python(LISTENER, tmp_path / "heard", "family"), {}, in_an_hour())
    words(tmp_path / "heard", 2)
    guard.terminate()
    assert words(tmp_path / "heard", 4)[2:] == ["SIGTERM", "SIGTERM"]
    assert state(pid) not in "ZX"  # it does not care


async def test_a_cmd_that_ignores_sigterm_dies_by_kill(guard: Guard, tmp_path: Path) -> None:
    await guard.launch(python(LISTENER, tmp_path / "heard", "family"), {}, in_an_hour())
    family = [int(pid) for pid in words(tmp_path / "heard", 2)]
    guard.terminate()
    words(tmp_path / "heard", 4)
    guard.kill()
    assert await guard.exited() == 128 + signal.SIGKILL
    await guard.reaped()
    assert [state(pid) for pid in family] == ["X", "X"]


@pytest.mark.parametrize(("number", "hearers"), [(signal.SIGINT, 2), (signal.SIGUSR1, 1)])
async def test_signals_are_handed_on_as_their_sender_meant_them(
    guard: Guard, tmp_path: Path, number: signal.Signals, hearers: int
) -> None:
    await guard.launch(python(LISTENER, tmp_path / "heard", "family"), {}, in_an_hour())
    words(tmp_path / "heard", 2)
    guard.signal(number)
    assert words(tmp_path / "heard", 2 + hearers)[2:] == [number.name] * hearers
    guard.signal(signal.SIGHUP)  # comes after it: had there been another hearer, it would show
    assert words(tmp_path / "heard", 3 + hearers)[2 + hearers :] == ["SIGHUP"]


async def test_descendants_that_left_the_group_die_with_cmd(guard: Guard, tmp_path: Path) -> None:
    await guard.launch(python(RUNAWAY, tmp_path / "pid", "stay"), {}, in_an_hour())
    (runaway,) = map(int, words(tmp_path / "pid"))
    assert os.getpgid(runaway) != guard.pid
    guard.kill()
    await guard.reaped()
    assert state(runaway) == "X"


async def test_descendants_that_outlive_cmd_are_killed(guard: Guard, tmp_path: Path) -> None:
    await guard.launch(python(RUNAWAY, tmp_path / "pid"), {}, in_an_hour())
    assert await guard.exited() == 0
    await guard.reaped()
    (runaway,) = map(int, words(tmp_path / "pid"))
    assert state(runaway) == "X"


async def test_the_guard_ignores_the_signals_that_end_a_sidecar(guard: Guard) -> None:
    await guard.launch(["sleep", "3600"], {}, in_an_hour())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        guard._process.send_signal(number)
    guard.terminate()
    assert await guard.exited() == 128 + signal.SIGTERM


async def test_closing_kills_what_runs_and_ends_the_guard(tmp_path: Path) -> None:
    async with asyncio.timeout(PATIENCE), await Guard.start() as guard:
        pid = await guard.launch(python(RUNAWAY, tmp_path / "pid", "stay"), {}, in_an_hour())
        (runaway,) = map(int, words(tmp_path / "pid"))
    assert (state(pid), state(runaway), guard._process.returncode) == ("X", "X", 0)
    assert await guard.exited() == 128 + signal.SIGKILL
    await guard.reaped()


async def test_a_guard_that_is_slow_to_read_gets_all_of_a_long_command(
    guard: Guard, tmp_path: Path
) -> None:
    program = "import sys; open(sys.argv[1], 'w').write(f'{len(sys.argv[2])} ')"
    argv = python(program, tmp_path / "out", "x" * 100_000)  # more than a pipe holds
    os.kill(guard._process.pid, signal.SIGSTOP)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(guard.launch(argv, {}, in_an_hour()))
        await asyncio.sleep(0)  # it has written what fits
        assert guard._unsent
        os.kill(guard._process.pid, signal.SIGCONT)
    assert await guard.exited() == 0
    assert words(tmp_path / "out") == ["100000"]


async def test_a_cancelled_launch_leaves_nothing_running(guard: Guard, tmp_path: Path) -> None:
    os.kill(guard._process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await guard.launch(["sleep", "3600"], {}, in_an_hour())
    os.kill(guard._process.pid, signal.SIGCONT)
    await guard.reaped()
    assert await guard.exited() == 128 + signal.SIGKILL


async def test_kill_reaches_cmd_also_when_the_guard_is_frozen(guard: Guard) -> None:
    pid = await guard.launch(["sleep", "3600"], {}, in_an_hour())
    os.kill(guard._process.pid, signal.SIGSTOP)
    guard.kill()
    wait_until(lambda: gone(pid), "CMD dies")
    os.kill(guard._process.pid, signal.SIGCONT)
    assert await guard.exited() == 128 + signal.SIGKILL


async def test_a_frozen_guard_with_a_newer_deadline_in_its_pipe_lets_cmd_live(
    guard: Guard,
) -> None:
    first = boottime.now() + 2.0
    pid = await guard.launch(["sleep", "3600"], {}, first)
    os.kill(guard._process.pid, signal.SIGSTOP)
    guard.extend(in_an_hour())
    wait_until(lambda: boottime.now() > first, "the first deadline passes")
    os.kill(guard._process.pid, signal.SIGCONT)
    guard.signal(signal.SIGTERM)  # is obeyed after the deadline was looked at
    assert await guard.exited() == 128 + signal.SIGTERM
    assert state(pid) == "X"


async def test_a_guard_that_is_killed_takes_cmd_along_and_is_noticed() -> None:
    async with asyncio.timeout(PATIENCE):
        guard = await Guard.start()
        pid = await guard.launch(["sh", "-c", "sleep 3600 & echo; wait"], {}, in_an_hour())
        (child,) = wait_until(lambda: others_of_group(pid), "the shell has a child")
        guard._process.kill()
        with pytest.raises(GuardLost):
            await guard.exited()
        with pytest.raises(GuardLost):
            await guard.reaped()
        wait_until(lambda: gone(pid, child), "CMD's group dies")
        guard.terminate()
        guard.kill()
        await guard.close()


def others_of_group(group: int) -> list[int]:
    """The members of a process group that descends from us, but for its leader."""
    below = descendants()
    return [
        pid for pid in below if pid != group and state(pid) not in "ZX" and os.getpgid(pid) == group
    ]


async def test_a_line_that_is_no_command_ends_everything(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with asyncio.timeout(PATIENCE), await Guard.start() as guard:
        await guard.launch(["sleep", "3600"], {}, in_an_hour())
        guard._send("DEADLINE nan")
        assert await guard.exited() == 128 + signal.SIGKILL
        await guard.reaped()
        with pytest.raises(GuardLost):
            await guard.launch(["true"], {}, in_an_hour())
    assert "'DEADLINE nan' cannot be carried out" in capfd.readouterr().err


async def test_a_guard_that_cannot_be_started_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = open_descriptors()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(GuardLost, match=r"cannot be started: .*/no/such/python"):
        spawn_guard()
    assert open_descriptors() == before


async def test_a_start_that_is_cancelled_leaves_no_guard_and_no_descriptor() -> None:
    before, children = open_descriptors(), descendants()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await Guard.start()
    assert open_descriptors() == before
    assert descendants() == children


def test_a_guard_can_be_started_before_there_is_a_loop(tmp_path: Path) -> None:
    handle = spawn_guard()

    async def use() -> int:
        async with asyncio.timeout(PATIENCE), Guard(handle) as guard:
            await guard.launch(["sh", "-c", "exit 5"], {}, in_an_hour())
            return await guard.exited()

    assert asyncio.run(use()) == 5
