"""Server-Sent Events: one status document per change, the first at once.

A renewal is no change. A client that reads slowly gets the latest state, never a backlog.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import Receive, Scope, Send

from sidecar.core.state import ElectionState
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import Clock
from sidecar.outputs.status import describe, encode, without_deadline

SUBSCRIBERS_LIMIT = 64
HEARTBEAT = 15.0  # seconds; proxies drop connections that are silent for a minute
_RETRY = b"retry: 1000\n\n"  # milliseconds after which a client comes back
_COMMENT = b": still here\n\n"


class _Left(Exception):
    """The client is gone."""


class EventStream:
    """The ASGI application behind `/events`."""

    def __init__(
        self,
        feed: Feed[ElectionState],
        clock: Clock,
        *,
        heartbeat: float = HEARTBEAT,
        limit: int = SUBSCRIBERS_LIMIT,
    ) -> None:
        self._feed = feed
        self._clock = clock
        self._heartbeat = heartbeat
        self._limit = limit
        self.subscribers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one client until it leaves."""
        if scope["method"] == "OPTIONS":
            await _answer(send, 204, b"", (b"allow", b"GET, HEAD, OPTIONS"))
        elif scope["method"] == "HEAD":
            await _answer(send, 200, b"", *_HEADERS)
        elif self.subscribers >= self._limit:
            await _answer(send, 503, b"too many subscribers\n", (b"retry-after", b"5"))
        else:
            self.subscribers += 1
            try:
                await self._serve(receive, send)
            finally:
                self.subscribers -= 1

    async def _serve(self, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_until_left(receive), name="events-client")
                group.create_task(self._stream(send), name="events-stream")
        except* _Left:
            pass

    async def _stream(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        await _chunk(send, _RETRY)
        news = News(self._feed, self._clock)
        told: dict[str, Any] | None = None
        loop = asyncio.get_running_loop()
        spoke_at = loop.time()
        while True:
            document = describe(news.look(), self._clock)
            if without_deadline(document) != told:
                told = without_deadline(document)
                await _chunk(send, b"data: " + encode(document) + b"\n")
                spoke_at = loop.time()
            elif loop.time() - spoke_at >= self._heartbeat:
                await _chunk(send, _COMMENT)
                spoke_at = loop.time()
            await news.wait(at_most=max(0.0, spoke_at + self._heartbeat - loop.time()))


_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


async def _until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _Left


async def _chunk(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
