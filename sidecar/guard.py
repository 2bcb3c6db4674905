"""The sidecar's side of the guard: start it early, tell it the deadlines, hear what became of CMD.

The guard itself, its duties and the protocol are in `sidecar.guard_process`. It is a fresh
interpreter and no fork of ours, so that it shares no memory, no threads and no descriptors with us;
`spawn_guard` needs no event loop and belongs before the import of grpc, which starts threads. Not
here: when to send SIGTERM, how long to wait for CMD, what a term is.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from sidecar.errors import SidecarError

T = TypeVar("T")

# Started with -I and -S: no PYTHON* variables, no site-packages, no .pth files. The package is
# found where we were loaded from, which holds for a virtual environment and for a checkout.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sidecar.guard_process import main; main(sys.argv[2:])"
)


class GuardLost(SidecarError):
    """The guard cannot be started, has ended, or was closed."""


class LaunchFailed(SidecarError):
    """CMD was not started; the message says why.

    Attributes:
        exit_code: what a shell would exit with: 127 not found, 126 not executable; 1 too late.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class GuardHandle(NamedTuple):
    """A guard that was started, and our ends of its pipes."""

    process: subprocess.Popen[bytes]
    commands: int
    reports: int


def spawn_guard(*, keep_open: Sequence[int] = ()) -> GuardHandle:
    """Start the guard process. No event loop is needed; call it before grpc is imported.

    CMD will have the environment, the directory and the standard streams of this moment.

    Args:
        keep_open: descriptors that the guard and all it starts keep open. With a lock among them,
            whoever gets that lock later knows that every one of them is dead.

    Raises:
        GuardLost: it cannot be started.
    """
    commands_end, commands = os.pipe()
    reports, reports_end = os.pipe()
    package_parent = str(Path(__file__).absolute().parent.parent)
    arguments = [package_parent, str(commands_end), str(reports_end)]
    try:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-I", "-S", "-c", _PROGRAM, *arguments],
            pass_fds=(commands_end, reports_end, *keep_open),
            # A group of its own: what is meant for ours, Ctrl-C or kill -9, must not reach it.
            process_group=0,
        )
    except OSError as error:
        os.close(commands)
        os.close(reports)
        raise GuardLost(f"the guard process cannot be started: {error}") from error
    finally:
        os.close(commands_end)
        os.close(reports_end)
    return GuardHandle(process, commands, reports)


class Guard:
    """A guard, attached to the running event loop; one CMD at a time.

    What is sent to a guard that is gone is dropped: CMD's group has been killed then, and the
    methods that wait raise `GuardLost`.
    """

    def __init__(self, handle: GuardHandle) -> None:
        """Attach to a guard, which may have been started before the loop."""
        self._process, self._commands, self._reports = handle
        self._loop = asyncio.get_running_loop()
        self._unsent, self._unread = bytearray(), b""
        self._ready = self._busy = self._reaped = self._closed = self._lost = False
        self._pid: int | None = None
        self._code: int | None = None
        self._failure: LaunchFailed | None = None
        self._news = asyncio.Event()
        os.set_blocking(self._commands, False)
        os.set_blocking(self._reports, False)
        self._loop.add_reader(self._reports, self._read)

    @classmethod
    async def start(cls) -> Self:
        """Start a guard and wait until it is ready.

        Raises:
            GuardLost: it cannot be started, or ended at once.
        """
        guard = cls(spawn_guard())
        try:
            await guard.ready()
        except asyncio.CancelledError:
            guard._process.kill()  # it holds nothing yet
            guard._end()
            raise
        return guard

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """CMD's pid, which is that of its process group; None while it does not run."""
        return self._pid if self._code is None else None

    async def ready(self) -> None:
        """Wait until the guard has become subreaper and listens."""
        await self._first(lambda: self._ready or None)

    async def launch(self, argv: Sequence[str], env: Mapping[str, str], deadline: float) -> int:
        """Start CMD, with `env` added to the guard's environment; return its pid once it runs.

        Its deadline, in seconds of CLOCK_BOOTTIME, is moved by `extend`; at its passing CMD and all
        its descendants are killed. A launch that is cancelled kills what it may have started.

        Raises:
            LaunchFailed: CMD could not be started, or the deadline had passed.
            RuntimeError: the last one has not been reaped.
            ValueError: there is no program to start.
        """
        if self._busy:
            raise RuntimeError("the last CMD of this guard has not been reaped")
        if not argv:
            raise ValueError("there is no program to start")
        self._pid = self._code = self._failure = None
        self._busy, self._reaped = True, False
        self.extend(deadline)
        self._send(f"START {json.dumps({'argv': list(argv), 'env': dict(env)})}")
        outcome: LaunchFailed | int
        try:
            outcome = await self._first(self._launch_outcome)
        except asyncio.CancelledError:
            self.kill()
            raise
        if isinstance(outcome, LaunchFailed):
            raise LaunchFailed(f"cannot start {argv[0]!r}: {outcome}", outcome.exit_code)
        return outcome

    def extend(self, deadline: float) -> None:
        """Let CMD live until this time of CLOCK_BOOTTIME, in seconds; the latest call holds."""
        self._send(f"DEADLINE {float(deadline)!r}")

    def terminate(self) -> None:
        """Send SIGTERM to CMD's group."""
        self._send("TERM")

    def signal(self, number: int) -> None:
        """Hand a signal on: a terminal's to CMD's group, every other one to CMD alone.

        Raises:
            ValueError: there is no such signal.
        """
        self._send(f"SIGNAL {signal.Signals(number).value}")

    def kill(self) -> None:
        """Kill CMD and all its descendants; its group at once and by us, should the guard hang."""
        self._send("KILL")
        self._read()  # its number is good as long as the guard has not told of its end
        self._kill_group()

    async def exited(self) -> int:
        """Wait for CMD's end; return its exit code, 128 + n if signal n ended it.

        Raises:
            GuardLost: the guard is gone; CMD's group has been killed, its code is not known.
            RuntimeError: nothing was launched.
        """
        self._check_launched()
        return await self._first(lambda: self._code)

    async def reaped(self) -> None:
        """Wait until CMD and every one of its descendants are gone.

        Raises:
            GuardLost: the guard is gone; CMD's group has been killed, others may live.
            RuntimeError: nothing was launched.
        """
        self._check_launched()
        await self._first(lambda: self._reaped or None)

    async def close(self) -> None:
        """Have the guard kill what runs, and wait for its end; a frozen one is waited for."""
        self._close_commands()
        await self._first(lambda: self._lost or None)

    def _launch_outcome(self) -> LaunchFailed | int | None:
        return self._failure or self._pid

    def _check_launched(self) -> None:
        if not self._busy and not self._reaped:
            raise RuntimeError("this guard has launched nothing")

    async def _first(self, come: Callable[[], T | None]) -> T:
        while (value := come()) is None:
            if self._lost:
                raise GuardLost("the guard process has ended")
            await self._news.wait()
        return value

    def _send(self, line: str) -> None:
        if not self._closed:
            self._unsent += f"{line}\n".encode()
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: os.write(self._commands, self._unsent)]
        except BlockingIOError:
            self._loop.add_writer(self._commands, self._flush)
            return
        except BrokenPipeError:  # the end of its reports says the same, and is heard
            self._unsent.clear()
        self._loop.remove_writer(self._commands)

    def _close_commands(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_writer(self._commands)
            os.close(self._commands)

    def _read(self) -> None:
        if self._lost:
            return
        try:
            chunk = os.read(self._reports, 1 << 12)
        except BlockingIOError:
            return
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            self._hear(*line.decode().partition(" ")[::2])
        if not chunk:
            self._end()
        self._news.set()
        self._news = asyncio.Event()

    def _hear(self, report: str, operand: str) -> None:
        match report:
            case "READY":
                self._ready = True
            case "STARTED":
                self._pid = int(operand)
            case "FAILED":
                code, _, why = operand.partition(" ")
                self._failure, self._busy = LaunchFailed(why, int(code)), False
            case "EXITED":
                how, _, number = operand.partition(" ")
                self._code = int(number) + (128 if how == "signal" else 0)
            case "REAPED":
                self._busy, self._reaped = False, True

    def _end(self) -> None:
        # The guard is gone. Descendants outside the group are beyond our reach, the group is not.
        self._lost = True
        self._kill_group()
        self._close_commands()
        self._loop.remove_reader(self._reports)
        os.close(self._reports)
        self._process.wait()  # it ends with its pipes: nothing to wait for but the kernel

    def _kill_group(self) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
