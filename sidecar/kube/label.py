"""Keeps the pod's label and annotations at what the feed says.

What may be written over what is decided in `sidecar.kube.marks`. Here is when: at once after each
change of the role, again with growing pauses until it is done, and now and then a look whether it
still is so. That look also keeps the connection open, which the API server ends after 90 s without
a request, and the version known, so that the next change takes a single round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from typing import Any, Protocol

from sidecar.core.state import ElectionState, Role
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ApiRefused, NoAnswer
from sidecar.kube import marks
from sidecar.kube.api import CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, THROTTLED, UNAUTHORIZED
from sidecar.kube.marks import FOLLOWER, LEADER, Marks, Pod, Verdict

log = logging.getLogger(__name__)

OUTPUT = "pod_label"
PATCHED, UNANSWERED = "patched", "unanswered"
_SERVER_ERRORS = 500
_RESULTS = {
    UNAUTHORIZED: "unauthorized",
    FORBIDDEN: "forbidden",
    NOT_FOUND: "not_found",
    CONFLICT: "conflict",
    THROTTLED: "throttled",
}
RESULTS = (PATCHED, UNANSWERED, *_RESULTS.values(), "unavailable", "rejected")

_LIMIT = 2.0  # seconds for one request
_HURRY = 0.1  # seconds that a request has left once it says what is no longer true
_LONGEST_PAUSE = 5.0
_CONFLICTS = 5  # in a row that are answered at once
_FIRST_LOOK, _LONGEST_LOOK = 1.0, 45.0  # seconds from one look to the next, doubling


class PodApi(Protocol):
    """What is asked of the API server; `sidecar.kube.api.ApiServer` is one."""

    async def read_pod(self) -> Pod:
        """Return the own pod as it is now."""
        ...

    async def patch_pod(self, patch: dict[str, Any]) -> Pod:
        """Apply a merge patch."""
        ...


class Failures(Protocol):
    """Who is told of failures; returns at once."""

    def failed(self, output: str, error: BaseException) -> None:
        """A try failed."""
        ...

    def worked(self, output: str) -> None:
        """A try succeeded."""
        ...


class PodMeter(Protocol):
    """Who counts; returns at once."""

    def patched(self, result: str, seconds: float) -> None:
        """A patch was answered, or given up after so long."""
        ...

    def told(self, seconds: float) -> None:
        """The pod shows a change of the role, this long after it."""
        ...


class PodLabel:
    """The label of one pod."""

    def __init__(
        self,
        api: PodApi,
        feed: Feed[ElectionState],
        clock: Clock,
        *,
        uid: str,
        may_shrink: bool,
        failures: Failures,
        meter: PodMeter,
    ) -> None:
        """Describe it; `uid` and `may_shrink` are as in `sidecar.kube.marks.judge`."""
        self._api = api
        self._feed = feed
        self._clock = clock
        self._news = News(feed, clock)
        self._uid = uid
        self._may_shrink = may_shrink
        self._failures = failures
        self._meter = meter
        rng = random.SystemRandom()
        self._backoff = Backoff(rng, _LONGEST_PAUSE)
        self._looks = Backoff(rng, _LONGEST_LOOK, _FIRST_LOOK)
        self._term = 0  # the own one that runs, or the last one
        self._wanted = Marks("", 0)
        self._wanted_since = 0.0
        self._found: Pod | None = None
        self._look_at = 0.0
        self._conflicts = 0
        self._limit: asyncio.Timeout | None = None
        self._shown: Feed[Marks | None] = Feed(None)
        self._has_ended = False

    async def run(self) -> None:
        """Follow the feed until cancelled, or until the pod turns out to be another one."""
        self._feed.listen(self._heard)
        loop = asyncio.get_running_loop()
        try:
            while not self._has_ended:
                self._news.look()
                self._heard()
                tried = self._wanted
                is_held, pause = await self._try(tried)
                rest_until = loop.time() + pause
                while (left := rest_until - loop.time()) > 0 and (is_held or self._wanted == tried):
                    await self._news.wait(left)
                    self._news.look()
                    self._heard()
        finally:
            self._has_ended = True

    async def settle(self, at_most: float) -> None:
        """Wait until the pod says follower, for at most so many seconds.

        To be called when the feed says follower. A patch that says leader and was never answered
        may be under way: then the pod does not say follower until a later patch was answered.
        """
        if at_most <= 0:
            return
        self._heard()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while not self._has_ended and self._shown.value != self._wanted:
                    await self._shown.changed(self._shown.version)

    def _heard(self) -> None:
        """Take in what the pod shall show; called in the same step as the feed changes."""
        state = self._feed.value.at(self._clock.now())
        if state.role is Role.LEADER:
            self._term = state.token
        wanted = Marks(LEADER if state.role is Role.LEADER else FOLLOWER, self._term)
        if wanted == self._wanted:
            return
        now = asyncio.get_running_loop().time()
        self._wanted, self._wanted_since = wanted, now
        limit = self._limit
        # One that has just expired cannot be changed any more, and raising here would reach the
        # election, which publishes.
        if limit is not None and not limit.expired():
            limit.reschedule(min(limit.when() or math.inf, now + _HURRY))

    async def _try(self, wanted: Marks) -> tuple[bool, float]:
        """Try once; return for how long to rest, and whether news may not shorten that."""
        try:
            await self._bring_about(wanted)
        except ApiRefused as exc:
            return self._refused(exc)
        except ApiError as exc:
            # It may have landed, or may yet land: not for long without a look.
            self._looks.reset()
            self._look_at = 0.0
            self._failures.failed(OUTPUT, exc)
            return False, self._backoff.next()
        self._conflicts = 0
        self._backoff.reset()
        return False, max(0.0, self._look_at - asyncio.get_running_loop().time())

    def _refused(self, exc: ApiRefused) -> tuple[bool, float]:
        self._found = None
        if exc.status >= _SERVER_ERRORS:
            self._looks.reset()  # it may land yet, as after no answer
        if exc.status in (CONFLICT, INVALID):
            # The pod is at another version, or another pod: the next try reads it first.
            self._conflicts += 1
            if self._conflicts <= _CONFLICTS:
                return False, 0.0
        self._failures.failed(OUTPUT, exc)
        pause = self._backoff.next()
        if exc.retry_after is None:
            return False, pause
        return True, max(exc.retry_after, pause)

    async def _bring_about(self, wanted: Marks) -> None:
        """Make the pod show what is wanted, by at most one read and one patch."""
        loop = asyncio.get_running_loop()
        if self._found is None or loop.time() >= self._look_at:
            self._found = None
            self._found = await self._read()
            self._uid = self._uid or self._found.uid
            self._look_at = loop.time() + self._looks.next()
        verdict = marks.judge(wanted, self._found, self._uid, may_shrink=self._may_shrink)
        if verdict is Verdict.WRITE:
            if wanted != self._wanted:
                return  # it has changed meanwhile: never write what is known to be untrue
            self._shown.publish(None)
            patch = marks.patch(wanted, self._found, may_shrink=self._may_shrink)
            self._found = await self._patch(patch)
        self._conclude(wanted, verdict)

    def _conclude(self, wanted: Marks, verdict: Verdict) -> None:
        if verdict is Verdict.OUTDATED:
            term = self._found.term if self._found else 0
            self._failures.failed(
                OUTPUT, ApiError(f"the pod shows term {term}, after {wanted.term}: left as it is")
            )
        elif verdict is Verdict.REPLACED:
            self._failures.failed(OUTPUT, ApiError("another pod has this name now: left as it is"))
            self._has_ended = True
        else:
            self._failures.worked(OUTPUT)
        if verdict is Verdict.WRITE and wanted == self._wanted:
            self._meter.told(asyncio.get_running_loop().time() - self._wanted_since)
            log.debug("pod labelled role=%s term=%d", wanted.role, wanted.term)
        self._shown.publish(wanted)

    async def _read(self) -> Pod:
        try:
            async with asyncio.timeout(_LIMIT):
                return await self._api.read_pod()
        except TimeoutError as exc:
            raise NoAnswer("get pods: no answer in time") from exc

    async def _patch(self, patch: dict[str, Any]) -> Pod:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = UNANSWERED
        try:
            async with asyncio.timeout(_LIMIT) as self._limit:
                pod = await self._api.patch_pod(patch)
            result = PATCHED
        except TimeoutError as exc:
            raise NoAnswer("patch pods: no answer in time") from exc
        except ApiRefused as exc:
            result = result_of(exc.status)
            raise
        else:
            return pod
        finally:
            self._limit = None
            self._meter.patched(result, loop.time() - began)


def result_of(status: int) -> str:
    """Return the word that a refused patch is counted under."""
    return _RESULTS.get(status, "unavailable" if status >= _SERVER_ERRORS else "rejected")
