"""How long to wait before the next try: growing, and never in step with others."""

from __future__ import annotations

import asyncio
import random

_FIRST = 0.05
_LONGEST = 1.0


class Backoff:
    """Pauses that double up to a longest, in seconds, each shortened at random by up to a half."""

    def __init__(
        self, rng: random.Random, longest: float = _LONGEST, first: float = _FIRST
    ) -> None:
        self._rng = rng
        self._longest = longest
        self._first = self._pause = first

    def next(self) -> float:
        """Return how many seconds to wait now; the next pause is longer."""
        pause = self._pause * self._rng.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, self._longest)
        return pause

    async def wait(self) -> None:
        """Sleep once; the next pause is longer."""
        await asyncio.sleep(self.next())

    def reset(self) -> None:
        """Start over: something worked."""
        self._pause = self._first
