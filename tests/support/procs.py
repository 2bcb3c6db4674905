"""Child processes that are always gone afterwards, and ports that stay free.

A `Child` writes its output to files of its own, so it never blocks on a reader and never dies of a
closed pipe, and what it said can still be read after it died.

How it dies: normally by the context manager; at interpreter exit by `atexit`; and when this process
is killed without a chance to clean up, by the kernel, which sends the parent-death signal. The
signal is armed by a small program that runs between fork and exec (`setpriv`, or a Python one-liner
where that is missing), because `preexec_fn` may deadlock in a process with threads. The kernel ties
it to the *thread* that started the child, so only the main thread may start one.
"""

import atexit
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

T = TypeVar("T")
Stream = Literal["out", "err"]

LOOPBACK = "127.0.0.1"
POLL_EVERY = 0.005  # seconds between two looks at a file or a process
PATIENCE = 60.0  # seconds; a bound for a slow machine, not an expectation
TAIL_LINES = 40

_ARM_AND_EXEC = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); "  # PR_SET_PDEATHSIG, SIGKILL
    "os.execvp(sys.argv[1], sys.argv[1:])"
)
_living: "set[Child]" = set()


def wait_until(condition: Callable[[], T | None], what: str, within: float = PATIENCE) -> T:
    """Return the first true value of the condition; fail with its last value after `within` s.

    Between two looks is as much time as a look takes: who waits leaves the processor to others.
    """
    deadline = time.monotonic() + within
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {within} s: {what}; last seen: {value!r}")
        time.sleep(max(POLL_EVERY, now - began))


def inherited_environment() -> dict[str, str]:
    """Return our environment without what would be a setting of etcd, etcdctl or the sidecar.

    And without what tells that this is a pod, or sidecars under test would label it.
    """
    settings = ("ETCD", "LEADER_SIDECAR_", "KUBERNETES_SERVICE_", "POD_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings)}


def free_port() -> int:
    """Return a port of the loopback that was free a moment ago.

    Anyone may take it before it is used: good for a port that nobody shall answer on. A server that
    has to get its port wants a `ReservedPort`.
    """
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class ReservedPort:
    """A loopback port that the kernel gives to nobody else, while a server may listen on it.

    Linux lets two sockets with SO_REUSEADDR share a port as long as only one of them listens, and
    never hands out a bound port by itself, neither to `bind` with port 0 nor to `connect`. Go,
    asyncio and uvicorn set SO_REUSEADDR on their listeners. So the port stays ours also between the
    death of a server and its restart.
    """

    def __init__(self, host: str = LOOPBACK) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((host, 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back; a second time does nothing."""
        self._socket.close()


class Child:
    """One child process: started, watched, signalled and always gone at the end."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        name: str,
        folder: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Describe the child; `start` runs it.

        `folder` takes NAME.out and NAME.err, `env` is added to `inherited_environment`, and
        `prefix` is a command that runs another one in its own place (`NetNs.prefix`).
        """
        self.argv = [str(argument) for argument in argv]
        self.name = name
        self._prefix = list(prefix)
        self._env = {**inherited_environment(), **(env or {})}
        self._cwd = cwd
        self._files: dict[Stream, Path] = {
            "out": folder / f"{name}.out",
            "err": folder / f"{name}.err",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Run the program; its output is added to what earlier runs of this child wrote.

        Raises:
            RuntimeError: when it runs already, or outside the main thread (see the module).
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the child would die with this thread: start it in the main thread")
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self.close()
        with self._files["out"].open("ab") as out, self._files["err"].open("ab") as err:
            self._process = subprocess.Popen(
                [*self._prefix, *_dies_with_parent(), *self.argv],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,  # Ctrl-C at the terminal is ours alone; a group to end
            )
        _living.add(self)
        return self

    def __enter__(self) -> Self:
        return self if self.running else self.start()  # `with child.start():` reads well, too

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the last start; nobody else gets it before `close`."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether the process exists; a stopped one does."""
        return self._process is not None and self.returncode is None

    @property
    def returncode(self) -> int | None:
        """Exit code, minus the signal that ended it, or None while it runs."""
        process = self._started()
        if process.returncode is not None:
            return process.returncode
        # Looks without reaping: as long as the dead one stays, its id cannot be given to another
        # process, and a signal to it or to its group can hit nobody else.
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        ended = os.waitid(os.P_PID, process.pid, look)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def text(self, stream: Stream = "out") -> str:
        """Return everything written to stdout or stderr so far, by all runs of this child."""
        path = self._files[stream]
        return path.read_text(errors="replace") if path.exists() else ""

    def lines(self, stream: Stream = "out") -> list[str]:
        """Return the complete lines written so far."""
        return self.text(stream).split("\n")[:-1]

    def tail(self) -> str:
        """Return the last lines of both streams, for the message of a failure."""
        parts = [f"{self.name}: {' '.join(self.argv)}\nexit code: {self.returncode}"]
        for stream in self._files:
            last = "\n".join(self.text(stream).splitlines()[-TAIL_LINES:])
            parts.append(f"--- {stream}\n{last}")
        return "\n".join(parts)

    def send_line(self, line: str) -> None:
        """Write one line to the child's stdin."""
        stdin = self._started().stdin
        assert stdin is not None
        stdin.write(f"{line}\n".encode())
        stdin.flush()

    def wait_for_line(
        self, pattern: str, *, stream: Stream = "out", skip: int = 0, within: float = PATIENCE
    ) -> re.Match[str]:
        """Return the match in the first line that has one, after `skip` others that have.

        Raises:
            AssertionError: with the child's last lines, when it ended or took too long.
        """
        wanted = re.compile(pattern)
        deadline = time.monotonic() + within
        while True:
            ended = not self.running  # asked first: what it wrote before its end counts
            found = [match for line in self.lines(stream) if (match := wanted.search(line))]
            if len(found) > skip:
                return found[skip]
            if ended or time.monotonic() > deadline:
                why = "ended without" if ended else f"said within {within} s no"
                raise AssertionError(f"{self.name} {why} {pattern!r}\n{self.tail()}")
            time.sleep(POLL_EVERY)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for the end and return the exit code.

        Raises:
            AssertionError: with the child's last lines, when it still runs.
        """
        deadline = time.monotonic() + within
        while (code := self.returncode) is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"still runs after {within} s\n{self.tail()}")
            time.sleep(POLL_EVERY)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; to one that has ended it does nothing."""
        if self.running:
            os.kill(self.pid, number)

    def terminate(self, within: float = PATIENCE) -> int:
        """Send SIGTERM, wait for the end, return the exit code (AssertionError as `wait`)."""
        self.resume()  # a stopped process would keep the signal for later
        self.signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """Send SIGKILL and wait until the process is gone; also for a stopped or dead one."""
        self.signal(signal.SIGKILL)
        self.wait()

    def pause(self) -> None:
        """Freeze it by SIGSTOP; returns when no thread of it runs any more.

        Raises:
            RuntimeError: when it does not run.
        """
        if not self.running:
            raise RuntimeError(f"cannot pause what has ended\n{self.tail()}")
        self.signal(signal.SIGSTOP)
        wait_until(lambda: _thread_states(self.pid) <= {"T"}, f"{self.name} is stopped")

    def resume(self) -> None:
        """Let it go on by SIGCONT; one that was not stopped is left as it is."""
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process and whatever it left in its process group; a second time does nothing."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):  # nobody is left in the group
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # a line that the child died over
                process.stdin.close()
        _living.discard(self)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process


def _dies_with_parent() -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is not None:
        return [setpriv, "--pdeathsig", "KILL", "--"]
    return [sys.executable, "-c", _ARM_AND_EXEC]


def _thread_states(pid: int) -> set[str]:
    """Return the state letters of all threads of a process (T: stopped)."""
    states = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            states.add(stat.read_text().rpartition(") ")[2][0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # this thread has just ended
    return states


def _close_the_living() -> None:
    for child in list(_living):
        child.close()


atexit.register(_close_the_living)
