"""One crawl of one resource: breadth first, at the resource's rate, to its depth."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urldefrag

from crawler.fetch import Fetched, Fetcher
from crawler.records import Spec

PAGES_PER_CRAWL = 1000


@dataclass(frozen=True, slots=True)
class _Step:
    """A page to fetch: how far from the first ones, and on whose host; None: it is a first one."""

    url: str
    depth: int = 0
    home: str | None = None


class Pace:
    """So many turns per second at most."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._due = 0.0

    async def turn(self) -> None:
        """Wait until the next turn is due."""
        loop = asyncio.get_running_loop()
        start = max(self._due, loop.time())
        self._due = start + 1 / self.rate
        await asyncio.sleep(start - loop.time())


async def crawl(
    fetcher: Fetcher, spec: Spec, turn: Callable[[], Awaitable[None]]
) -> AsyncGenerator[Fetched, None]:
    """Yield the pages of a resource, each once, at most `PAGES_PER_CRAWL`.

    `turn` is awaited before each request.
    """
    waiting = deque(_Step(urldefrag(url).url) for url in spec.urls)
    known = {step.url for step in waiting}
    fetched = 0
    while waiting and fetched < PAGES_PER_CRAWL:
        step = waiting.popleft()
        found = await fetcher.fetch(step.url, home=step.home, turn=turn)
        fetched += 1
        yield found
        if step.depth >= spec.depth:
            continue
        known.add(found.url)  # where a redirect has led
        # More than can be fetched in this crawl need not be remembered.
        room = PAGES_PER_CRAWL - fetched - len(waiting)
        fresh = [link for link in found.links if link not in known][: max(room, 0)]
        known.update(fresh)
        waiting.extend(_Step(link, step.depth + 1, found.url) for link in fresh)
