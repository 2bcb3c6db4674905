"""The status file: what programs beside the sidecar believe.

One thread writes it, in order, and always what is true at that moment, so a slow disk skips states
and never queues them. The event loop only wakes the thread and hears from it.

Before the own key is given up, `StatusFile.settle` must return: from then on no program can
believe that this file says leader. Two facts decide, both kept under one lock:

* `_may_mislead`: set before a write of "leader" begins, so also while it hangs; cleared only
  after the *same thread, later* wrote "follower" or unlinked the file;
* `_claimed_until`: the latest deadline that any write of "leader" was begun with, landed or not.

The file is settled when it cannot mislead, or when `_claimed_until` has passed: a write that hangs
past it lands a claim that no reader accepts any more.

The markers `leader` and `follower` are for shell scripts that accept a weaker promise. `leader`
appears after the file says so, and is removed before the file says otherwise, so a crash between
two steps never leaves a marker that claims more than the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable
from typing import Protocol

from sidecar.boottime import STATUS
from sidecar.core.state import ElectionState, Role
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import Clock
from sidecar.outputs.health import LONGEST_PAUSE, OutputErrors
from sidecar.outputs.status import describe, encode

OUTPUT = "status_file"
LEADER_MARKER = "leader"
FOLLOWER_MARKER = "follower"
_PATIENCE = 1.0  # seconds to wait for a first write, and for the thread's end


class Writer(Protocol):
    """What the thread does to the directory; `StatusDirectory` is one."""

    def claimed_until(self) -> float:
        """Return until when (CLOCK_BOOTTIME) what is there may be believed to say leader."""
        ...

    def replace(self, name: str, content: bytes, *, is_meant: Callable[[], bool]) -> bool:
        """Replace a file in one step if it is still meant; return whether it was."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        ...

    def touch(self, name: str) -> None:
        """Make an empty file, if there is none."""
        ...


class StatusFile:
    """Writes `status.json` and its marker on every change and every renewal."""

    def __init__(
        self,
        directory: Writer,
        feed: Feed[ElectionState],
        clock: Clock,
        errors: OutputErrors,
    ) -> None:
        """Read what a predecessor left there; blocks for as long as the disk does."""
        self._directory = directory
        self._feed = feed
        self._clock = clock
        self._errors = errors
        self._tries: Feed[int] = Feed(0)
        self._thread: threading.Thread | None = None
        self._follows = False
        # All below is guarded by the condition.
        self._condition = threading.Condition()
        self._is_wanted = False
        self._is_ending = False
        self._is_written = False
        self._may_mislead = True
        self._claimed_until = directory.claimed_until()

    @property
    def is_written(self) -> bool:
        """Whether a status has been written since the start."""
        return self._is_written

    def claimed_for(self) -> float:
        """Return for how many seconds yet what a predecessor wrote may be true; 0 if it is not."""
        return max(self._until_settled(), 0.0)

    def follow(self) -> None:
        """Write what the feed says, now and after each change, until `close`.

        The thread is woken in the same step as the feed changes: a program beside the sidecar
        hears of it before anything else is done about it.
        """
        self._follows = True
        self._feed.listen(self._wake)
        self._wake()

    async def write_initial(self) -> None:
        """Write what the feed says before anything else happens, and `settle`.

        A disk that cannot be written, or hangs, does not stop the start: then this returns when
        no program can believe a predecessor's file any more.
        """
        self._wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._tries.changed(0)
        await self.settle()

    async def settle(self) -> None:
        """Wait until no program can believe that this file says leader.

        To be called when the feed says follower; while it says leader this does not return.
        """
        if not self._follows:
            self._wake()  # else the change itself has woken the thread
        while True:
            tries = self._tries.version
            news = News(self._feed, self._clock)
            if news.look().role is Role.LEADER:
                await news.wait()
                continue
            pause = self._until_settled()
            if pause <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._tries.changed(tries)

    async def close(self) -> bool:
        """Let the thread write what is due, and end; return whether it has ended.

        A thread that hangs in a write is left behind; it does not keep the process alive.
        """
        with self._condition:
            self._is_ending = True
            self._condition.notify()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while self._thread is not None:
                    await self._tries.changed(self._tries.version)
        return self._thread is None

    def _wake(self) -> None:
        with self._condition:
            self._is_wanted = True
            self._condition.notify()
        if self._thread is None and not self._is_ending:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._work, args=(loop,), name=OUTPUT, daemon=True
            )
            self._thread.start()

    def _until_settled(self) -> float:
        """Return for how many seconds at most somebody may believe in us; 0 or less: nobody."""
        with self._condition:
            if not self._may_mislead:
                return 0.0
            return self._claimed_until - self._clock.now()

    # From here on: the thread.

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        backoff = Backoff(random.SystemRandom(), LONGEST_PAUSE)
        pause: float | None = None
        while self._is_due(pause):
            state = self._begin()
            try:
                is_done = self._write(state)
            except OSError as error:
                self._errors.failed(OUTPUT, error)
                pause = self._no_later(state, backoff.next())
            else:
                self._errors.worked(OUTPUT)
                backoff.reset()
                pause = self._no_later(state, None) if is_done else 0.0
            self._tell(loop, self._one_more_try)
        self._tell(loop, self._ended)

    def _is_due(self, pause: float | None) -> bool:
        """Wait until there is something to write, for `pause` seconds; False: it is all over."""
        with self._condition:
            self._condition.wait_for(lambda: self._is_wanted or self._is_ending, pause)
            return self._is_wanted or not self._is_ending

    def _begin(self) -> ElectionState:
        """Decide what to write. From here on a write of "leader" counts as published."""
        with self._condition:
            self._is_wanted = False
            state = self._feed.value.at(self._clock.now())
            if state.role is Role.LEADER:
                self._may_mislead = True
                self._claimed_until = max(self._claimed_until, state.deadline)
            return state

    def _no_later(self, state: ElectionState, pause: float | None) -> float | None:
        """Shorten the pause so that the end of the term is written down in time."""
        if state.role is not Role.LEADER:
            return pause
        left = max(0.0, state.deadline - self._clock.now())
        return left if pause is None else min(pause, left)

    def _write(self, state: ElectionState) -> bool:
        if state.role is Role.LEADER:
            return self._say_leader(state)
        self._say_follower(state)
        return True

    def _say_leader(self, state: ElectionState) -> bool:
        def is_meant() -> bool:
            now = self._clock.now()
            current = self._feed.value
            return now < state.deadline and current.is_leader(now) and current.token == state.token

        self._directory.remove(FOLLOWER_MARKER)
        content = encode(describe(state, self._clock))
        if not self._directory.replace(STATUS, content, is_meant=is_meant):
            return False
        self._is_written = True
        if is_meant():
            self._directory.touch(LEADER_MARKER)
        return True

    def _say_follower(self, state: ElectionState) -> None:
        content = encode(describe(state, self._clock))
        try:
            self._directory.remove(LEADER_MARKER)
            self._directory.replace(STATUS, content, is_meant=lambda: True)
        except OSError:
            self._withdraw()
            raise
        with self._condition:
            self._may_mislead = False
            self._is_written = True
        self._directory.touch(FOLLOWER_MARKER)

    def _withdraw(self) -> None:
        """Take away a file that may say leader: on a full disk that still works."""
        if self._may_mislead:
            self._directory.remove(LEADER_MARKER)
            self._directory.remove(STATUS)
            with self._condition:
                self._may_mislead = False

    @staticmethod
    def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
        # A loop that is closed by now has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(what)

    def _one_more_try(self) -> None:
        self._tries.publish(self._tries.value + 1)

    def _ended(self) -> None:
        self._thread = None
        self._one_more_try()
