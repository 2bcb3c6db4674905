"""The guard process of `exec -- CMD`: sees to it that CMD ends in time, whatever becomes of us.

It is a program of its own, small enough to be trusted: one thread, no event loop, nothing of ours
but `boottime`. It holds CMD in a process group, is the subreaper of all its descendants, and kills
every one of them when the deadline passes, when told to, when CMD itself has ended, or when the
pipe of commands closes, which the kernel does for a sidecar that was killed. It knows nothing of
elections and never restarts anything. Killed itself, it takes CMD along (parent-death signal), but
not CMD's children: those are `sidecar.guard`'s to kill.

Commands, one line each, on the first descriptor named in the arguments:

    DEADLINE <seconds>  CLOCK_BOOTTIME; the latest one given holds. Needed before START.
    START <json>        {"argv": [...], "env": {...}}: run it, env added to the guard's own.
                        May be given again after REAPED.
    TERM                SIGTERM to the group.
    SIGNAL <number>     Hand a signal on: what a terminal sends to a whole group (and SIGTERM,
                        SIGCONT) to the group, every other to CMD alone, as its sender meant it.
    KILL                SIGKILL to the group and to all descendants, setsid or not.

Reports, one line each, on the second:

    READY               It is subreaper and listens.
    STARTED <pid>       CMD runs; the pid is its process group, too.
    FAILED <code> <why> CMD was not started; 127 not found, 126 not executable (as shells have it),
                        1 the deadline had passed.
    EXITED exit <code>  or
    EXITED signal <n>   CMD has ended; its descendants are being killed.
    REAPED              CMD and every descendant are gone.

SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1 and SIGUSR2 are ignored here: the sidecar decides. A line
that is none of these commands means that the sidecar is broken: everything is killed.
"""

import contextlib
import json
import math
import os
import select
import signal
import sys
from collections.abc import Mapping, Sequence

from sidecar import boottime

NOT_FOUND, NOT_EXECUTABLE, TOO_LATE = 127, 126, 1
KILL_AGAIN = 0.02  # seconds; a descendant may fork while we kill
LOOK_ANYWAY = 1.0  # seconds; should a timer ever fail us
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_IGNORED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# Python ignores these for itself at its start; programs expect the default.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_FOR_THE_GROUP = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGTSTP,
        signal.SIGCONT,
        signal.SIGWINCH,
    }
)


class GuardProcess:
    """One guard: at most one CMD at a time."""

    def __init__(self, commands: int, reports: int) -> None:
        """Take over the two pipes, become subreaper, and stop listening to signals."""
        self._commands, self._reports = commands, reports
        for fd in (commands, reports):
            os.set_inheritable(fd, False)
        os.set_blocking(commands, False)
        self._unread = b""
        self._deadline: float | None = None
        self._pid: int | None = None  # CMD's, until it is waited for
        self._running = False  # from START until REAPED
        self._killing = False
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # CMD gets back what we were started with: under nohup it goes on ignoring SIGHUP.
        self._inherited = [(number, signal.getsignal(number)) for number in _IGNORED]
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        self._child_ended, wake = os.pipe()
        for fd in (self._child_ended, wake):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._timer = boottime.Timer()
        self._poll = select.poll()
        for fd in (commands, self._child_ended, self._timer.fd):
            self._poll.register(fd, select.POLLIN)

    def run(self) -> None:
        """Serve until the pipe of commands closes; leave nothing alive, also on an error."""
        try:
            self._report("READY")
            # The clock before the commands: if we are frozen at any point after this, a newer
            # deadline may lie in the pipe, and is obeyed before the older one is held against us.
            while True:
                now = boottime.now()
                if not self._obey():
                    break
                if self._deadline is not None and now >= self._deadline:
                    self._killing = self._running
                self._kill_and_reap()
                self._wait()
        finally:
            self._poll.unregister(self._commands)  # closed, it would wake us all the time
            self._killing = self._running
            self._kill_and_reap()
            while self._running:
                self._wait()
                self._kill_and_reap()

    def _wait(self) -> None:
        pause = KILL_AGAIN if self._killing else LOOK_ANYWAY
        self._poll.poll(pause * 1000 if self._running else None)
        with contextlib.suppress(BlockingIOError):
            os.read(self._child_ended, 1 << 16)

    def _obey(self) -> bool:
        """Carry out what lies in the pipe; return False once it is closed."""
        try:
            chunk = os.read(self._commands, 1 << 16)  # as much as a pipe holds
        except BlockingIOError:
            return True
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        for line in lines:
            try:
                self._carry_out(*line.decode("ascii").partition(" ")[::2])
            except (ValueError, KeyError, TypeError, OSError) as error:
                sys.exit(f"guard: the command {line[:80]!r} cannot be carried out: {error}")
        return bool(chunk)

    def _carry_out(self, command: str, operand: str) -> None:
        match command:
            case "DEADLINE":
                deadline = float(operand)
                if not math.isfinite(deadline):
                    raise ValueError("a deadline is a finite number")
                self._timer.arm(deadline)
                self._deadline = deadline
            case "START":
                what = json.loads(operand)
                self._start(what["argv"], what["env"])
            case "TERM":
                self._signal(signal.SIGTERM)
            case "SIGNAL":
                self._signal(signal.Signals(int(operand)))
            case "KILL":
                self._killing = self._running
            case _:
                raise ValueError("unknown")

    def _start(self, argv: list[str], env: Mapping[str, str]) -> None:
        if self._running or self._deadline is None:
            raise ValueError("CMD runs already" if self._running else "there is no deadline")
        if boottime.now() >= self._deadline:
            self._report(f"FAILED {TOO_LATE} the deadline has passed")
            return
        failure, told = os.pipe()  # closed by exec, or by the child's end
        guard = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # no more processes allowed
            self._report(f"FAILED {NOT_EXECUTABLE} {error.strerror}")
            pid = None
        if pid == 0:
            self._become(argv, {**os.environ, **env}, guard, told)
        os.close(told)
        why = os.read(failure, 1 << 12).decode()
        os.close(failure)
        if pid is not None and not why:
            self._running, self._pid = True, pid
            self._report(f"STARTED {pid}")
        elif pid is not None:
            os.waitpid(pid, 0)
            self._report(f"FAILED {why}")

    def _become(self, argv: list[str], env: Mapping[str, str], guard: int, told: int) -> None:
        """Turn into CMD, in the forked child; never returns."""
        try:
            os.setpgid(0, 0)
            _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != guard:  # it died before the line above
                os._exit(NOT_EXECUTABLE)
            signal.set_wakeup_fd(-1)
            for number, disposition in self._inherited:
                ignored = disposition is signal.SIG_IGN
                signal.signal(number, signal.SIG_IGN if ignored else signal.SIG_DFL)
            for number in _IGNORED_BY_PYTHON:
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(argv[0], argv, env)  # noqa: S606 - CMD is no shell's business
        except OSError as error:
            code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            os.write(told, f"{code} {error.strerror}".encode())
        except ValueError as error:  # a NUL in an argument, a "=" in a variable's name
            os.write(told, f"{NOT_EXECUTABLE} {error}".encode())
        finally:
            os._exit(NOT_EXECUTABLE)

    def _signal(self, number: signal.Signals) -> None:
        if self._pid is None:
            return
        with _gone_already():
            if number in _FOR_THE_GROUP:
                os.killpg(self._pid, number)
            else:
                os.kill(self._pid, number)

    def _kill_and_reap(self) -> None:
        if self._killing:
            if self._pid is not None:
                with _gone_already():
                    os.killpg(self._pid, signal.SIGKILL)
            for pid in descendants():
                with _gone_already():
                    os.kill(pid, signal.SIGKILL)
        if self._running:
            self._reap()

    def _reap(self) -> None:
        """Wait for all that has ended, adopted orphans too; report what that means."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                # No child is left, so no descendant: orphans would be children of ours.
                self._running = self._killing = False
                self._report("REAPED")
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._pid, self._killing = None, True
                code = os.waitstatus_to_exitcode(status)
                self._report(f"EXITED exit {code}" if code >= 0 else f"EXITED signal {-code}")

    def _report(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the sidecar is dead, CMD soon
            os.write(self._reports, f"{line}\n".encode())


def descendants() -> list[int]:
    """Return the living processes below this one, parents before children.

    Parents first: once killed, they make no more of them. Without a /proc of our own pid namespace
    there is no telling, and nobody may be killed by a number from another one.
    """
    children: dict[int, list[int]] = {}
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # noqa: PTH115 - pathlib costs memory
            return []
        with os.scandir("/proc") as entries:
            pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    except OSError:
        return []
    for pid in pids:
        children.setdefault(_parent(pid), []).append(pid)
    found = children.get(os.getpid(), [])
    for pid in found:  # grows while we go through it
        found += children.get(pid, [])
    return found


def _parent(pid: int) -> int:
    """Return the pid of a process's parent, 0 if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        # The name before it stands in parentheses and may hold anything, ")" and blanks too.
        return int(os.read(fd, 4096).rpartition(b")")[2].split()[1])
    except OSError:
        return 0
    finally:
        os.close(fd)


def _gone_already() -> contextlib.suppress:
    """Ignore that a process is gone, or has become another user's: there is nothing to be done."""
    return contextlib.suppress(ProcessLookupError, PermissionError)


def _prctl(option: int, value: int) -> None:
    # The function takes longs and is variadic: a plain int would leave half a register undefined.
    import ctypes  # noqa: PLC0415 - loaded by boottime in any case, but not by its importers

    boottime.libc_call("prctl", option, ctypes.c_ulong(value))


def main(arguments: Sequence[str]) -> None:
    """Run the guard; the arguments are its two descriptors."""
    commands, reports = map(int, arguments)
    GuardProcess(commands, reports).run()
