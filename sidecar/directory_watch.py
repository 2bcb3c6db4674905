"""Waiting until a file in a directory is replaced, by inotify: standard library only.

The kernel tells of everything that happens in a directory; only what concerns the one file wakes.
Where it tells nothing (no inotify, no such directory yet), whoever waits looks every 20 ms.
"""

import contextlib
import os
import select
import struct
import time
from collections.abc import Iterator

from sidecar import boottime

LOOK_EVERY = 0.02  # seconds between looks where the kernel cannot tell us
LOOK_ANYWAY = 1.0  # seconds; some file systems (gVisor, Kata) swallow events of other containers

# Created, deleted, moved in or out, written in place, and the directory's own end.
_EVENTS = 0x100 | 0x200 | 0x80 | 0x40 | 0x8 | 0x400 | 0x800
_ONLY_DIRECTORIES = 0x0100_0000
# The directory deleted or moved; unmounted, events lost, the watch gone.
_OF_THE_WATCH = 0x400 | 0x800 | 0x2000 | 0x4000 | 0x8000
_BUFFER = 1 << 16
_EVENT = struct.Struct("iIII")  # watch, mask, cookie, length of the name with its padding


class DirectoryWatch:
    """Wakes when one file in a directory changes or a deadline passes, as the system lets us."""

    def __init__(self, directory: str, name: str) -> None:
        """Watch for the file `name`; the directory need not exist yet."""
        self._epoll: select.epoll | None = None  # first: `close` asks for it
        self._directory = os.fsencode(directory)
        self._name = os.fsencode(name)
        self._attached = False
        self._marks: set[int] = set()
        self.pid = os.getpid()
        # No inotify instance left, no descriptor left, not Linux: then `pause` is short.
        cannot = contextlib.suppress(OSError, AttributeError, ImportError)
        with contextlib.ExitStack() as made, cannot:
            epoll = made.enter_context(select.epoll())
            self._inotify = boottime.libc_call("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
            made.callback(os.close, self._inotify)
            self._timer = boottime.Timer()
            made.callback(self._timer.close)
            epoll.register(self._inotify, select.EPOLLIN)
            epoll.register(self._timer.fd, select.EPOLLIN)
            self._made, self._epoll = made.pop_all(), epoll

    def close(self) -> None:
        """Give the descriptors back; a second time does nothing."""
        if self._epoll is not None:
            self._epoll = None
            self._made.close()

    __del__ = close

    @property
    def fd(self) -> int | None:
        """Readable when there may be something new; None when only looking helps."""
        return None if self._epoll is None else self._epoll.fileno()

    @property
    def pause(self) -> float:
        """How long to wait at most before looking again, in seconds."""
        return LOOK_ANYWAY if self._attached else LOOK_EVERY

    def renew(self) -> None:
        """Forget what woke us, and watch the directory that has the name now."""
        if self._epoll is None:
            return
        with contextlib.suppress(BlockingIOError):
            while os.read(self._inotify, _BUFFER):
                pass
        try:
            # The same directory again is no second watch; one put in its place is a new one.
            events = _EVENTS | _ONLY_DIRECTORIES
            self._marks.add(
                boottime.libc_call("inotify_add_watch", self._inotify, self._directory, events)
            )
            self._attached = True
        except OSError:
            self._attached = False

    def rest(self) -> None:
        """Be quiet until the next `renew`, so that no events pile up."""
        self.wake_at(None)
        for mark in self._marks:
            with contextlib.suppress(OSError):  # gone with its directory
                boottime.libc_call("inotify_rm_watch", self._inotify, mark)
        self._marks.clear()
        self._attached = False

    def wake_at(self, deadline: float | None) -> None:
        """Wake at this time of CLOCK_BOOTTIME too; None: not."""
        if self._epoll is not None:
            self._timer.arm(deadline)

    def sleep(self, pause: float) -> None:
        """Block until something may be new, at most so many seconds."""
        if self._epoll is None:
            time.sleep(pause)
            return
        end = boottime.now() + pause
        while pause > 0 and not self.is_news(pause):
            pause = end - boottime.now()

    def is_news(self, within: float = 0) -> bool:
        """Whether the file may be new or the deadline has passed; waits for the first event.

        What the sidecar does to other files there, and to the one that is about to take the
        place of this one, is taken in and is no news: each change brings several such events.
        """
        if self._epoll is None:
            return True
        ready = [fd for fd, _ in self._epoll.poll(within)]
        if self._timer.fd in ready:
            return True
        if not ready:
            return False
        try:
            events = os.read(self._inotify, _BUFFER)
        except BlockingIOError:
            return False  # another task was faster; it looks
        return any(self._is_meant(mask, name) for mask, name in _events(events))

    def _is_meant(self, mask: int, name: bytes) -> bool:
        return name == self._name or bool(mask & _OF_THE_WATCH)


def _events(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield mask and name of each event in what the kernel has told."""
    at = 0
    while at < len(raw):
        _, mask, _, length = _EVENT.unpack_from(raw, at)
        at += _EVENT.size + length
        yield mask, raw[at - length : at].rstrip(b"\0")
