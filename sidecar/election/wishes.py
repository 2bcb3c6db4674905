"""What others want of a candidate: to stand, to stand back, to retire, to stop.

The base of `Candidate`. A wish only notes itself and wakes whoever waits; it is the candidate that
obeys, in order.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.core.state import Reason
from sidecar.election.feed import Feed
from sidecar.errors import SidecarError


class Wishes(ABC):
    """The wishes that one candidate has been told, and waiting for their change.

    Attributes:
        is_ending: whether `stop` was called.
    """

    def __init__(self) -> None:
        self.is_ending = False
        self._stop: Reason | None = None
        self._back: Reason | None = None
        self._keep_key = False
        self._is_leaving = False
        self._skip_drain = asyncio.Event()
        self._pulse: Feed[int] = Feed(0)

    def stand_back(self, reason: Reason = Reason.UNHEALTHY) -> None:
        """Leave the queue, in order where it leads, until `stand_again`."""
        self._back = reason
        self._wake()

    def stand_again(self) -> None:
        """Stand (again) from now on."""
        self._back = None
        self._wake()

    def retire(self, *, keep_key: bool = False) -> None:
        """Step down in order and never stand again; `run` goes on observing until `stop`.

        With `keep_key` it stops acting, and the key is given up only at `leave` or `stop`.
        """
        self._stop = self._stop or Reason.RETIRED
        self._keep_key = keep_key and not self._is_leaving
        self._wake()

    def leave(self) -> None:
        """Step down in order and never stand again; `run` goes on observing until `stop`."""
        self._stop = self._stop or Reason.SHUTDOWN
        self._is_leaving = True
        self._keep_key = False
        self._wake()

    def stop(self) -> None:
        """Step down in order and let `run` return."""
        self.is_ending = True
        self.leave()

    def hurry(self) -> None:
        """Skip what is left of the drain time."""
        self._skip_drain.set()
        self._wake()

    # --- waking, and waiting ------------------------------------------------------------------

    @abstractmethod
    def _tell(self) -> None:
        """Take in what has changed, and publish what is true now."""

    def _wake(self) -> None:
        self._tell()
        self._pulse.publish(self._pulse.value + 1)

    def _wants(self) -> bool:
        return self._stop is None and self._back is None

    async def _until(self, condition: Callable[[], bool]) -> None:
        version = self._pulse.version
        while not condition():
            version = await self._pulse.changed(version)

    async def _while_wanted(self, work: Coroutine[Any, Any, None]) -> bool:
        """Do some work, cancelled when nobody wants to stand any more; say whether it ended.

        Raises:
            SidecarError: what the work raised.
        """
        failure: list[SidecarError] = []
        ended = False

        async def guarded() -> None:
            nonlocal ended
            try:
                await work
                ended = True
            except SidecarError as exc:
                failure.append(exc)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(guarded(), name="candidate-work")
            guard = group.create_task(
                self._until(lambda: not self._wants()), name="candidate-guard"
            )
            task.add_done_callback(lambda _: guard.cancel())
            guard.add_done_callback(lambda _: task.cancel())
        if failure:
            raise failure[0]
        return ended
