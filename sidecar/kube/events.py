"""Events about the own pod: one when its term begins, one when it ends, and nothing else.

They are core/v1 Events. events.k8s.io/v1 stores the same objects, but would be one more API group
in the Role, and leaves out the first and last time that dashboards and older clients show.

Best effort: a handful of tries, a short queue, dropped beyond. An Event's name is made of the term
and of what happened, so one that is sent twice, by a retry or by a restart, is there once.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from sidecar.core.state import ElectionState, Link, Reason, Role
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ApiRefused, NoAnswer
from sidecar.kube.access import PodAccess
from sidecar.kube.api import THROTTLED
from sidecar.kube.label import Failures

OUTPUT = "pod_event"
ELECTED, STEPPED_DOWN = "LeaderElected", "SteppedDown"
_COMPONENT = "leader-sidecar"
_LIMIT = 2.0  # seconds for one request
_TRIES = 4
_WAITING = 8  # Events; beyond them the oldest is dropped
_LET_OTHERS = 1.0  # seconds
"""At a change all sidecars have something to say at once, and the labels are more urgent."""
_LONGEST_MESSAGE = 1000  # characters; the API server takes 1024 bytes
_LONGEST_NAME = 200  # characters of a pod's name in an Event's, which may have 253 in all
_SERVER_ERRORS = 500
_UNPLANNED = {
    Reason.DEADLINE_PASSED,
    Reason.KEY_GONE,
    Reason.SESSION_LOST,
    Reason.STORE_REPLACED,
    Reason.TOKEN_WENT_BACK,
    Reason.UNHEALTHY,
}


@dataclass(frozen=True, slots=True)
class Happening:
    """A term that began or ended.

    Attributes:
        what: the Event's reason.
        token: of the term.
        message: for people.
        at: wall clock, seconds since 1970.
    """

    what: str
    token: int
    message: str
    at: float
    is_warning: bool = False


class Story:
    """What has happened, told from one state to the next. Pure."""

    def __init__(self) -> None:
        self._token = 0  # of the own term that runs

    def note(self, state: ElectionState, at: float) -> list[Happening]:
        """Return what has happened since the last call.

        A term that is suspended has not ended: it may go on.
        """
        if state.role is not Role.LEADER and _is_suspended(state):
            return []
        happened: list[Happening] = []
        if self._token and self._token != state.token:
            # With a new term already, the state's reason is why that one began.
            reason = state.reason if not state.token else Reason.SESSION_LOST
            happened.append(_ended(state.election, self._token, reason, at))
        if state.token and state.token != self._token and state.reason is not Reason.RESUMED:
            message = f"leads {state.election} with fencing token {state.token}"
            happened.append(Happening(ELECTED, state.token, message, at))
        self._token = state.token
        return happened


def _is_suspended(state: ElectionState) -> bool:
    return state.link is Link.SUSPENDED and state.reason is Reason.DEADLINE_PASSED


def _ended(election: str, token: int, reason: Reason, at: float) -> Happening:
    message = f"leads {election} no longer: {reason}; the term had fencing token {token}"
    return Happening(STEPPED_DOWN, token, message, at, is_warning=reason in _UNPLANNED)


def event(happening: Happening, access: PodAccess, uid: str) -> dict[str, Any]:
    """Return the Event to create."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(happening.at))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", happening.what).lower()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{access.name[:_LONGEST_NAME].rstrip('-.')}.{words}.{happening.token}",
            "namespace": access.namespace,
        },
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": access.name,
            "namespace": access.namespace,
            **({"uid": uid} if uid else {}),
        },
        "type": "Warning" if happening.is_warning else "Normal",
        "reason": happening.what,
        "message": happening.message[:_LONGEST_MESSAGE],
        "source": {"component": _COMPONENT},
        "reportingComponent": _COMPONENT,
        "reportingInstance": access.name,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }


class EventApi(Protocol):
    """What is asked of the API server; `sidecar.kube.api.ApiServer` is one."""

    async def create_event(self, event: dict[str, Any]) -> None:
        """Create an Event."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class PodEvents:
    """Sends the Events of one pod.

    Args:
        api: the API server, over a connection of its own.
        access: the pod.
        feed: of states.
        clock: of this machine.
        failures: told of what goes wrong.
        first: waits for what is more urgent, before Events are sent; must end soon.
    """

    def __init__(
        self,
        api: EventApi,
        access: PodAccess,
        feed: Feed[ElectionState],
        clock: Clock,
        failures: Failures,
        *,
        first: Callable[[], Awaitable[None]],
    ) -> None:
        self._api = api
        self._access = access
        self._feed = feed
        self._clock = clock
        self._failures = failures
        self._first = first
        self._story = Story()
        self._waiting: deque[Happening] = deque(maxlen=_WAITING)
        self._is_idle: Feed[bool] = Feed(True)
        self._in_a_hurry = asyncio.Event()
        # From now on, not from `run` on: a term that is short and early is a term, too.
        feed.listen(self._heard)
        self._heard()

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            if self._waiting:
                await self._first()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LET_OTHERS):
                        await self._in_a_hurry.wait()
            while self._waiting:
                await self._send(self._waiting.popleft())
            self._api.close()  # the next transition may be days away
            self._is_idle.publish(value=True)
            await self._is_idle.changed(self._is_idle.version)

    async def finish(self, at_most: float) -> None:
        """Send at once what waits, and wait for that, for at most so many seconds."""
        self._in_a_hurry.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most):
                while not self._is_idle.value:
                    await self._is_idle.changed(self._is_idle.version)

    def _heard(self) -> None:
        happened = self._story.note(self._feed.value, self._clock.wall())
        if happened:
            self._waiting.extend(happened)
            self._is_idle.publish(value=False)

    async def _send(self, happening: Happening) -> None:
        body = event(happening, self._access, self._access.uid)
        backoff = Backoff(random.SystemRandom())
        for left in reversed(range(_TRIES)):
            try:
                await self._try(body)
            except ApiError as exc:
                self._failures.failed(OUTPUT, exc)
                if not left or not _is_passing(exc):
                    return
                pause = backoff.next()
                await asyncio.sleep(max(pause, getattr(exc, "retry_after", None) or 0.0))
            else:
                self._failures.worked(OUTPUT)
                return

    async def _try(self, body: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                await self._api.create_event(body)
        except TimeoutError as exc:
            raise NoAnswer("create events: no answer in time") from exc


def _is_passing(exc: ApiError) -> bool:
    if not isinstance(exc, ApiRefused):
        return True
    return exc.status == THROTTLED or exc.status >= _SERVER_ERRORS
