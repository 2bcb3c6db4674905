"""What is served over HTTP, as one Starlette application.

Each answer is decided when it is asked for, from the feed and the clock; the verdict is the status
code, so that probes and load balancers need no parser.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import sidecar
from sidecar.core.codec import TermRecord
from sidecar.core.state import ElectionState, Link, Role
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.outputs.events import EventStream
from sidecar.outputs.status import describe, encode, timestamp

ReadyWhen = Literal["candidate", "leader"]
METHODS = ("GET", "HEAD", "OPTIONS")
_OK, _NO_CONTENT, _UNAVAILABLE = 200, 204, 503
_NO_STORE = {"cache-control": "no-store"}
_PAGE = Path(sidecar.__file__).parent / "page" / "index.html"


class Endpoints:
    """The paths of design and README: what each of them answers."""

    def __init__(
        self,
        feed: Feed[ElectionState],
        clock: Clock,
        *,
        alive: Callable[[], bool],
        is_started: Callable[[], bool],
        expose: Callable[[str], tuple[bytes, str]],
        history: Callable[[], Sequence[TermRecord]] = tuple,
        ready_when: ReadyWhen = "candidate",
    ) -> None:
        """Take what the answers depend on.

        Args:
            feed: the election as this candidate sees it.
            clock: asked at each request.
            alive: whether the renewal loop turns; must not depend on etcd.
            is_started: whether a first status has been written.
            expose: the metrics and their content type, for an Accept header.
            history: the last terms, oldest first.
            ready_when: whether a follower counts as ready.
        """
        self._feed = feed
        self._clock = clock
        self._alive = alive
        self._is_started = is_started
        self._expose = expose
        self._history = history
        self._ready_when = ready_when
        self._page = _PAGE.read_bytes()
        self._page_headers = {**_NO_STORE, **_page_headers(self._page.decode())}

    def app(self) -> Starlette:
        """Return the application."""
        stream = EventStream(self._feed, self._clock)
        paths: dict[str, Callable[[Request], Response]] = {
            "/": self._root,
            "/leader": self._leader,
            "/follower": self._follower,
            "/readyz": self._readyz,
            "/livez": self._livez,
            "/status": self._status,
            "/history": self._terms,
            "/metrics": self._metrics,
        }
        routes = [
            Route(path, _answering(answer), methods=METHODS) for path, answer in paths.items()
        ]
        return Starlette(routes=[*routes, Route("/events", stream, methods=METHODS)])

    def _now(self) -> ElectionState:
        return self._feed.value.at(self._clock.now())

    def _leader(self, _: Request) -> Response:
        state = self._now()
        return self._verdict(state, holds=state.role is Role.LEADER)

    def _follower(self, _: Request) -> Response:
        state = self._now()
        return self._verdict(state, holds=state.role is not Role.LEADER)

    def _status(self, _: Request) -> Response:
        return self._verdict(self._now(), holds=True)

    def _verdict(self, state: ElectionState, *, holds: bool) -> Response:
        return _json(describe(state, self._clock), _OK if holds else _UNAVAILABLE)

    def _readyz(self, _: Request) -> Response:
        return _probe("ready", self._why_not_ready(self._now()))

    def _why_not_ready(self, state: ElectionState) -> str:
        if state.link is not Link.CONNECTED:
            return f"etcd has not answered lately (link {state.link}, {state.reason})"
        if self._ready_when == "leader" and state.role is not Role.LEADER:
            return f"not the leader ({state.reason}), and ready means leader here"
        # In a pause nobody can register; pulling every pod out of its Services would punish it.
        if state.is_registered or state.is_paused or state.role is Role.OBSERVER:
            return ""
        return f"not registered as a candidate ({state.reason})"

    def _livez(self, _: Request) -> Response:
        if not self._is_started():
            return _probe("alive", "the first status is not written yet")
        return _probe("alive", "" if self._alive() else "the renewal loop stands still")

    def _terms(self, _: Request) -> Response:
        records = list(self._history())
        # What a term that died could not say, its successor often could.
        befores = [*(record.before for record in records), ""][1:]
        terms = [
            {
                "leader": record.id,
                "token": record.token,
                "from": timestamp(record.since),
                "until": None if record.until is None else timestamp(record.until),
                "reason": record.reason or before,
            }
            for record, before in zip(records, befores, strict=True)
        ]
        return _json(terms)

    def _metrics(self, request: Request) -> Response:
        body, content_type = self._expose(request.headers.get("accept", ""))
        return Response(body, headers={"content-type": content_type, **_NO_STORE})

    def _root(self, request: Request) -> Response:
        if "text/html" in request.headers.get("accept", "").lower():
            return Response(self._page, headers=self._page_headers)
        state = self._now()
        # Every field that the sidecars before this one served, each with its own meaning there.
        name = state.leader.id if state.leader else ""
        now = self._clock.now()
        document = {
            "name": name,
            "is_leader": state.role is Role.LEADER,
            "leader": name,
            "node": state.id,
            "token": state.leader.token if state.leader else 0,
            "lease_remaining": state.deadline - now if state.is_leader(now) else 0.0,
            "last_update": timestamp(self._last_change(state)),
            "timestamp": timestamp(self._clock.wall()),
        }
        return _json(document, vary="accept")

    def _last_change(self, state: ElectionState) -> float:
        """Return since when the leader leads, else since when we are what we are."""
        if state.leader is not None:
            for record in self._history():
                if record.token == state.leader.token:
                    return record.since
        return state.since


def _answering(answer: Callable[[Request], Response]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(status_code=_NO_CONTENT, headers={"allow": ", ".join(METHODS)})
        return answer(request)

    return endpoint


def _json(document: Any, status: int = _OK, **headers: str) -> Response:
    return Response(
        encode(document), status, {**_NO_STORE, **headers}, media_type="application/json"
    )


def _probe(what: str, why_not: str) -> Response:
    if why_not:
        return PlainTextResponse(f"not {what}: {why_not}\n", _UNAVAILABLE, _NO_STORE)
    return PlainTextResponse(f"{what}\n", _OK, _NO_STORE)


def _page_headers(page: str) -> dict[str, str]:
    """Let the page run its own style and script, and nothing that was smuggled in."""
    style, script = (_hashes(page, tag) for tag in ("style", "script"))
    policy = (
        f"default-src 'none'; style-src {style}; script-src {script}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "vary": "accept",
    }


def _hashes(page: str, tag: str) -> str:
    found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [hashlib.sha256(content.encode()).digest() for content in found]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
