"""Fetches one page, within bounds that no server can break: time, size, redirects.

A page is asked for as it is, without compression: a small answer then cannot unfold into a large
one. What goes wrong is no exception but a page with an `error`: the web is full of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from crawler.links import decoded, extract, is_same_host, joined
from crawler.records import Page

_HEADERS = {
    "User-Agent": "leader-sidecar-crawler",
    "Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.1",
    "Accept-Encoding": "identity",
}
_PARSED = ("text/html", "application/xhtml+xml")
_REDIRECTS = (301, 302, 303, 307, 308)
_OK = 200
_SIZE_DIGITS = 15
_LONGEST_ERROR = 200  # characters


@dataclass(frozen=True, slots=True)
class Limits:
    """What one page may cost.

    Attributes:
        seconds: from its first request to its last byte, redirects included.
        silence: seconds without a byte.
        size: bytes of its body.
        redirects: how many are followed.
        at_once: requests under way at the same time, of all resources.
    """

    seconds: float = 20.0
    silence: float = 5.0
    size: int = 1 << 20
    redirects: int = 5
    at_once: int = 32


@dataclass(frozen=True, slots=True)
class Fetched:
    """A page, and what a crawl needs to go on from it.

    Attributes:
        url: where it was found in the end.
        links: those in it that lead to the same host.
        seconds: how long it took, without waiting for turns.
    """

    page: Page
    url: str
    links: tuple[str, ...] = ()
    seconds: float = 0.0


class _Refused(Exception):
    """The page is beyond a limit; the text says which."""


class Fetcher:
    """An HTTP client for a crawler; an async context manager."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        connections = httpx.Limits(
            max_connections=self._limits.at_once, max_keepalive_connections=self._limits.at_once
        )
        # Nothing of this machine's environment (proxies, .netrc) and no cookies from page to page.
        self._client = httpx.AsyncClient(
            headers=_HEADERS,
            http2=False,
            trust_env=False,
            follow_redirects=False,
            # Waiting for one of our own connections is no fault of the page's.
            timeout=httpx.Timeout(self._limits.silence, pool=None),
            limits=connections,
        )
        self._gate = asyncio.Semaphore(self._limits.at_once)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, exc, traceback)

    async def fetch(
        self, url: str, *, home: str | None, turn: Callable[[], Awaitable[None]]
    ) -> Fetched:
        """Fetch one page; what goes wrong is told by `Page.error`.

        Args:
            url: where it is said to be.
            home: a URL of the host that redirects must not leave; None: they may.
            turn: awaited before each request, those of redirects included; takes no page's time.
        """
        at, spent = url, 0.0
        for _ in range(self._limits.redirects + 1):
            await turn()
            async with self._gate:
                began = asyncio.get_running_loop().time()
                found = await self._try(url, at, self._limits.seconds - spent)
                spent += asyncio.get_running_loop().time() - began
            if isinstance(found, Fetched):
                return dataclasses.replace(found, seconds=spent)
            problem = _wrong_redirect(found, home)
            if problem:
                return _failed(url, at, problem, spent)
            at = found
        return _failed(url, at, f"more than {self._limits.redirects} redirects", spent)

    async def _try(self, url: str, at: str, within: float) -> Fetched | str:
        """Return the page, with an error or without, or else where it redirects to."""
        try:
            async with asyncio.timeout(within):
                return await self._ask(url, at)
        except _Refused as exc:
            return _failed(url, at, str(exc))
        except TimeoutError:
            return _failed(url, at, f"not within {self._limits.seconds:g} s")
        # ValueError: names and headers that httpx cannot take apart.
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError) as exc:
            return _failed(url, at, f"{type(exc).__name__}: {exc}".rstrip(": "))

    async def _ask(self, url: str, at: str) -> Fetched | str:
        async with self._client.stream("GET", at) as answer:
            self._client.cookies.clear()
            status = answer.status_code
            if status in _REDIRECTS and "location" in answer.headers:
                return joined(at, answer.headers["location"]) or ""
            kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in _PARSED:
                return Fetched(Page(url, status, _told_size(answer)), at)
            if answer.headers.get("content-encoding", "identity").lower() != "identity":
                raise _Refused("compressed, though asked for as it is")
            body = await self._body(answer)
        found = extract(decoded(body, answer.charset_encoding), at)
        page = Page(url, status, len(body), found.title)
        return Fetched(page, at, found.links if status == _OK else ())

    async def _body(self, answer: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in answer.aiter_raw():
            body += chunk
            if len(body) > self._limits.size:
                raise _Refused(f"larger than {self._limits.size} bytes")
        return bytes(body)


def _wrong_redirect(target: str, home: str | None) -> str:
    """Say why a redirect is not followed, "" where it is."""
    if not target:
        return "redirects to what is no http(s) URL"
    if home is not None and not is_same_host(target, home):
        return "redirects to another host"
    return ""


def _failed(url: str, at: str, error: str, seconds: float = 0.0) -> Fetched:
    return Fetched(Page(url, 0, error=error[:_LONGEST_ERROR]), at, seconds=seconds)


def _told_size(answer: httpx.Response) -> int:
    """Return the size that the server tells of a body that nobody reads."""
    told = answer.headers.get("content-length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) <= _SIZE_DIGITS else 0
