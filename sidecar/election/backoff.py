"""How long to wait before the next try: growing, and never in step with others."""

from __future__ import annotations

import asyncio
import random

_FIRST = 0.05
_LONGEST = 1.0


class Backoff:
    """Pauses of 50 ms, doubling to 1 s, each shortened at random by up to a half."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pause = _FIRST

    async def wait(self) -> None:
        """Sleep once; the next pause is longer."""
        pause = self._pause * self._rng.uniform(0.5, 1.0)
        self._pause = min(self._pause * 2, _LONGEST)
        await asyncio.sleep(pause)

    def reset(self) -> None:
        """Start over: something worked."""
        self._pause = _FIRST
