"""One epoll for all sockets of the forwarder, inside of the event loop's own.

Edge-triggered: a socket is registered once, and not again for each wait, which is most of what
`add_reader` and `add_writer` would cost here; also a peer that is gone is heard of while nobody
wants to read from it. It works on every loop that has `add_reader`.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
ENDED = select.EPOLLRDHUP
"""The peer sends nothing more."""
GONE = select.EPOLLHUP | select.EPOLLERR
"""Both directions are over, or the connection is broken."""
BROKEN = select.EPOLLERR
MARKED = select.EPOLLPRI
"""There is a mark of urgent data, at which each read ends."""

Ready = Callable[[int], None]

_BATCH = 256
_LONGEST_TURN = 0.002  # seconds; the election lives on the same loop


class Poller:
    """Calls back who watches a descriptor with the events that have happened to it.

    Args:
        before: called before each batch of calls, so before any byte is moved.
        now: tells seconds; a loop's own time may stand still within one of its rounds.
    """

    def __init__(self, before: Callable[[], None], now: Callable[[], float]) -> None:
        self._before = before
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._watchers: dict[int, Ready] = {}
        self._due: deque[tuple[int, Ready, int]] = deque()
        self._again: deque[Callable[[], None]] = deque()
        self._is_called = False
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def watch(self, fd: int, ready: Ready, *, only_the_end: bool = False) -> None:
        """Call `ready` with what is so now, and with each change from now on."""
        events = ENDED if only_the_end else READABLE | WRITABLE | ENDED | MARKED
        if fd in self._watchers:
            self._epoll.modify(fd, events | select.EPOLLET)
        else:
            self._epoll.register(fd, events | select.EPOLLET)
        self._watchers[fd] = ready

    def forget(self, fd: int) -> None:
        """Call nobody any more; to be called before the descriptor is closed."""
        if self._watchers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_again(self, resume: Callable[[], None]) -> None:
        """Call `resume` when all others have had their turn."""
        self._again.append(resume)
        self._call_soon()

    def close(self) -> None:
        """Watch nothing any more."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._watchers.clear()
        self._due.clear()
        self._again.clear()

    def _call_soon(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._called)

    def _called(self) -> None:
        self._is_called = False
        self._turn()

    def _turn(self) -> None:
        """Serve what is due, but not for long."""
        if self._epoll.closed:
            return
        self._before()
        if not self._due:
            self._due.extend(
                (fd, self._watchers[fd], events) for fd, events in self._epoll.poll(0, _BATCH)
            )
        ends_at = self._now() + _LONGEST_TURN
        resumed = len(self._again)
        try:
            while self._due:
                fd, ready, events = self._due.popleft()
                # Whoever was served before may have closed it, and its number may be another's
                # since then: what has happened to the one is no news of the other.
                if self._watchers.get(fd) is ready:
                    ready(events)
                if self._now() >= ends_at:
                    return
            while resumed and self._now() < ends_at:
                resumed -= 1
                self._again.popleft()()
        finally:
            if self._due or self._again:
                self._call_soon()
