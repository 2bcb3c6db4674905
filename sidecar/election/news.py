"""How whoever tells others follows the feed: what is true now, and waking when that changes.

A term also ends without anything being published, when its deadline passes. Whoever follows the
feed alone would go on saying "leader".
"""

from __future__ import annotations

import asyncio
import contextlib

from sidecar.core.state import ElectionState, Role
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock


class News:
    """One reader's place in the feed."""

    def __init__(self, feed: Feed[ElectionState], clock: Clock) -> None:
        self._feed = feed
        self._clock = clock
        self._version = -1
        self._seen = feed.value

    def look(self) -> ElectionState:
        """Return what is true now, and remember it as seen."""
        self._version = self._feed.version
        self._seen = self._feed.value.at(self._clock.now())
        return self._seen

    async def wait(self, at_most: float | None = None) -> None:
        """Wait until there is something newer than the last `look`, or for `at_most` seconds.

        The end of the term that was seen counts, also when nobody publishes it. It may return
        early; who needs to know looks again.
        """
        pauses = [] if at_most is None else [at_most]
        if self._seen.role is Role.LEADER:
            pauses.append(max(0.0, self._seen.deadline - self._clock.now()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(pauses, default=None)):
                await self._feed.changed(self._version)
