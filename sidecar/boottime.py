"""Stamps of CLOCK_BOOTTIME that pass between processes, and whether one may be believed here.

The clock counts suspend and is never set, so a stamp taken in one container means the same in every
other one of the same node: of the same boot, and of the same time namespace. This module reads and
judges the status file for `sidecar.client` and `sidecar.check` alike, so that both always say the
same, and wakes waiters when a stamp is reached. It writes nothing and imports nothing of ours.
"""

import functools
import json
import math
import os
import stat
import time

DEFAULT_STATUS_DIR = "/run/leader-sidecar"
STATUS = "status.json"
STATUS_VERSION = 1
STATUS_LIMIT = 1 << 20  # bytes; a status file is some hundred
_FAR_AHEAD = 2.0**31  # seconds, 68 years; more may not fit in the kernel's types
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_TIME_NAMESPACE = "/proc/self/ns/time"


def now() -> float:
    """Return CLOCK_BOOTTIME in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str | None:
    """Return the id of this boot of the kernel, or None where it cannot be read."""
    try:
        with open(_BOOT_ID, "rb") as file:  # noqa: PTH123 - importing pathlib costs more than all of this
            return file.read().decode("ascii").strip() or None
    except (OSError, ValueError):
        return None


def time_namespace() -> int | None:
    """Return the inode of this process's time namespace, or None where there are none."""
    try:
        return os.stat(_TIME_NAMESPACE).st_ino  # noqa: PTH116 - see boot_id
    except OSError:
        return None


def read_status(path: str) -> tuple[dict[str, object], str | None]:
    """Read a status file and judge it: is what it says true at this moment?

    Returns the document and None, or the document (empty if there is none to speak of) and why
    nobody may act on it: `missing`, `unreadable`, `too_large`, `malformed`, `unknown_version`,
    `other_boot`, `other_time_namespace` or `expired`. Never raises for what the file holds. A
    document that says leader has a positive `token`, a `key` and a finite `valid_until_boottime`.
    """
    try:
        raw = _read_limited(path)
    except FileNotFoundError:
        return {}, "missing"
    except OSError:
        return {}, "unreadable"
    document, problem = parse_status(raw)
    if problem is None:
        problem = _foreign(document)
    # The clock comes last: a process that was frozen anywhere above must not believe the file.
    if problem is None and is_past(document, now()):
        problem = "expired"
    return document, problem


def parse_status(raw: bytes) -> tuple[dict[str, object], str | None]:
    """Check the form of a status file's bytes; results as those of `read_status`."""
    if len(raw) > STATUS_LIMIT:
        return {}, "too_large"
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return {}, "malformed"
    if not isinstance(document, dict) or not _is_count(document.get("version")):
        return {}, "malformed"
    if document["version"] != STATUS_VERSION:
        return {}, "unknown_version"
    role = document.get("role")
    if not isinstance(role, str) or (role == "leader" and not _is_whole_claim(document)):
        return {}, "malformed"
    return document, None


def is_past(document: dict[str, object], at: float) -> bool:
    """Say whether a well-formed document claims a leadership that has ended at this time."""
    until = document.get("valid_until_boottime")
    return document["role"] == "leader" and not (isinstance(until, int | float) and at < until)


def _foreign(document: dict[str, object]) -> str | None:
    """Say why the document's stamps do not compare with our clock, if so."""
    theirs = document.get("boot_id")
    if document["role"] == "leader" or theirs is not None:
        here = boot_id()
        if here is None or theirs != here:
            return "other_boot"
    namespace = document.get("time_ns")
    if namespace is not None:
        here_ns = time_namespace()
        if here_ns is not None and namespace != here_ns:
            return "other_time_namespace"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_whole_claim(document: dict[str, object]) -> bool:
    key, until = document.get("key"), document.get("valid_until_boottime")
    if not isinstance(until, int | float) or isinstance(until, bool):
        return False
    try:
        finite = math.isfinite(until)  # the JSON of Python knows Infinity and NaN
    except OverflowError:  # an integer beyond any float
        return False
    return finite and _is_count(document.get("token")) and isinstance(key, str) and key != ""


def _read_limited(path: str) -> bytes:
    """Return the content of a regular file, at most one byte more than the limit.

    Raises:
        OSError: when it cannot be read, or is no regular file.
    """
    # O_NONBLOCK: to open a FIFO that somebody put there must not hang.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{path} is not a regular file")
        raw = b""
        while len(raw) <= STATUS_LIMIT and (chunk := os.read(fd, STATUS_LIMIT + 1 - len(raw))):
            raw += chunk
        return raw
    finally:
        os.close(fd)


class Timer:
    """A descriptor that becomes readable when CLOCK_BOOTTIME reaches a time.

    Timeouts of poll and of asyncio run on CLOCK_MONOTONIC, which stands still in suspend: they
    would fire late by as long as the machine slept.
    """

    def __init__(self) -> None:
        """Make it, disarmed.

        Raises:
            OSError: no descriptors left, or a kernel without timerfd.
        """
        self.fd = libc_call("timerfd_create", time.CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)

    def arm(self, at: float | None) -> None:
        """Fire at this time, at once if it is past; None disarms. What fired before is cleared."""
        import ctypes  # noqa: PLC0415 - `check` does without

        seconds = nanoseconds = 0
        if at is not None:
            # All zero would disarm. Rounded up: who wakes up finds the time reached.
            in_bounds = min(max(1e-9, at), _FAR_AHEAD)
            seconds, nanoseconds = divmod(math.ceil(in_bounds * 1e9), 1_000_000_000)
        setting = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)
        absolute = 1  # TFD_TIMER_ABSTIME
        libc_call("timerfd_settime", self.fd, absolute, ctypes.byref(setting), None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def libc_call(name: str, *arguments: object) -> int:
    """Call a function of the C library that returns -1 on failure.

    Raises:
        OSError: it failed; with its errno.
        AttributeError: this C library has no such function.
        ImportError: this Python has no ctypes.
    """
    import ctypes  # noqa: PLC0415 - `check` does without

    result = getattr(_libc(), name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(result)


@functools.cache
def _libc() -> object:
    import ctypes  # noqa: PLC0415 - `check` does without

    return ctypes.CDLL(None, use_errno=True)
