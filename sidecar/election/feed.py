"""A latest-value feed: whoever follows it gets the newest value, never a backlog.

It is what keeps a slow output from delaying a step-down: publishing never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Feed(Generic[T]):
    """One value that changes; readers see the latest, and may miss those in between."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._version = 0
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def value(self) -> T:
        """The latest value."""
        return self._value

    @property
    def version(self) -> int:
        """Grows with every change."""
        return self._version

    def publish(self, value: T) -> None:
        """Replace the value and wake everybody who waits; an equal value is no change."""
        if value == self._value:
            return
        self._value = value
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in self._listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` at once, in the same step, after each change from now on."""
        self._listeners.append(listener)

    async def changed(self, version: int) -> int:
        """Wait until the feed is newer than `version`; return the version it then has."""
        while self._version <= version:
            await self._changed.wait()
        return self._version

    async def follow(self) -> AsyncIterator[T]:
        """Yield the present value at once, then the latest after each change, forever."""
        version = -1
        while True:
            version = await self.changed(version)
            yield self._value
