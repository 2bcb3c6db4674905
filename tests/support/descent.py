"""Processes that must end: are they gone, and has a test left any behind?"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from sidecar.boottime import libc_call
from sidecar.guard_process import descendants
from tests.support.procs import wait_until

# CMD leaves a child behind in a session of its own, forked twice: nobody's child, no one's group.
RUNAWAY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        open(sys.argv[1], "w").write(f"{os.getpid()} ")
        time.sleep(3600)
    os._exit(0)
os.wait()
if sys.argv[2:] == ["stay"]:
    time.sleep(3600)
"""
_PR_SET_CHILD_SUBREAPER = 36


def state(pid: int) -> str:
    """The letter of /proc; Z is a zombie, X nothing at all."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def gone(*pids: int) -> bool:
    return all(state(pid) in "ZX" for pid in pids)


def words(path: Path, count: int = 1) -> list[str]:
    """What another process wrote there, once there are so many whole words."""

    def found() -> list[str]:
        text = path.read_text() if path.exists() else ""
        whole = text[: max(text.rfind(" "), text.rfind("\n")) + 1].split()
        return whole if len(whole) >= count else []

    return wait_until(found, f"{count} words in {path.name}")


@contextlib.contextmanager
def nothing_left(within: float = 0.0) -> Iterator[None]:
    """Fail when a process that was started inside lives on, and kill it, orphaned or not.

    `within` is how many seconds what was started may take to follow: for programs whose helpers
    end by themselves once they miss their parent, as a browser's do.
    """
    before = set(descendants())
    _be_subreaper(True)
    try:
        yield
    finally:
        new = [pid for pid in descendants() if pid not in before]
        with contextlib.suppress(AssertionError):
            wait_until(lambda: gone(*new), "what was started ends by itself", within)
        left = [pid for pid in new if not gone(pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: gone(*new), "what was left behind dies")
        for pid in new:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        _be_subreaper(False)
    assert not left, f"processes left behind: {left}"


def _be_subreaper(wanted: bool) -> None:
    libc_call("prctl", _PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(wanted))
