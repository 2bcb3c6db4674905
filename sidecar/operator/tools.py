"""What all workers share, and telling people what has happened."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sidecar.election.backoff import Backoff
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ApiRefused, NotLeader
from sidecar.kube.api import CONFLICT
from sidecar.operator import story
from sidecar.operator.api import Api, Gate, core_path
from sidecar.operator.facts import Node, Pod
from sidecar.operator.spec import Election
from sidecar.operator.status import stamp
from sidecar.operator.stores import Stores
from sidecar.operator.story import Happening

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 30.0  # seconds between tries of what is refused
_TELLING = 2  # Events that are sent at once
_WAITING = 20  # Events of an Election that wait to be sent


class OperatorMeter(Protocol):
    """Who counts what the operator does."""

    def repaired(self, election: Election) -> None:
        """A label was put right that its sidecar had left wrong."""
        ...

    def moved(self, election: Election, reason: str, result: str) -> None:
        """A planned move ended."""
        ...

    def gap(self, election: Election, seconds: float) -> None:
        """The leader changed, and nobody led for so long."""
        ...


class Retry:
    """When one thing that was refused is tried again, while everything else goes on."""

    def __init__(self) -> None:
        self._backoff = Backoff(random.SystemRandom(), longest=_LONGEST_PAUSE, first=0.2)
        self._at = 0.0

    def failed(self, now: float) -> None:
        """Note that it was refused at `now`, seconds on a clock that runs on."""
        self._at = now + self._backoff.next()

    def worked(self) -> None:
        """Note that it was not."""
        self._backoff.reset()

    def left(self, now: float) -> float:
        """Return for how many seconds it has to wait; 0 for none."""
        return max(0.0, self._at - now)


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers share.

    Attributes:
        pods: returns the pods of an Election.
        nodes: returns the nodes by name, or None where they may not be read.
        closing: returns for how many seconds further cordons are waited for yet.
        keep_pod: takes in a pod as an answer shows it; `lose_pod` (key, uid) one that is gone.
        reporter: name of the own pod, for Events.
        telling: Events under way, of all Elections: more would leave no connection to the rounds.
    """

    api: Api
    stores: Stores
    clock: Clock
    gate: Gate
    meter: OperatorMeter
    pods: Callable[[Election], list[Pod]]
    nodes: Callable[[], Mapping[str, Node] | None]
    closing: Callable[[], float]
    keep_pod: Callable[[Pod], None]
    lose_pod: Callable[[tuple[str, str], str], None]
    reporter: str
    telling: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_TELLING))


class Teller:
    """Tells of one Election by Events, in their order and beside everything else; best effort."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._told: tuple[str, str] | None = None
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(_WAITING)

    async def run(self) -> None:
        """Send what is told, until cancelled, or until another replica tells."""
        while True:
            path, event = await self._waiting.get()
            try:
                async with self._tools.telling:
                    await self._tools.api.create(path, event)
            except NotLeader:
                return
            except ApiRefused as exc:
                # One that is there already was told by somebody before us.
                if exc.status != CONFLICT:
                    log.warning("Event refused reason=%s error=%s", event["reason"], exc)
            except ApiError as exc:
                log.warning("Event lost reason=%s error=%s", event["reason"], exc)
            except Exception:
                # Nothing that is only told ends the work.
                log.exception("Event lost reason=%s", event["reason"])

    def tell(self, election: Election, happening: Happening) -> None:
        """Have an Event created; one too many is lost."""
        tools = self._tools
        event = story.event(happening, election, tools.clock.wall(), tools.reporter)
        try:
            self._waiting.put_nowait((core_path(election.namespace, "events"), event))
        except asyncio.QueueFull:
            log.warning("Event lost reason=%s error=%d wait before it", happening.what, _WAITING)

    def tell_of_command(
        self, election: Election, what: str, message: str, *, token: int, is_warning: bool
    ) -> None:
        """Tell how a command ended; the same refusal once in a row, however often it is tried."""
        if is_warning and self._told == (what, message):
            return
        self._told = (what, message) if is_warning else None
        moment = stamp(self._tools.clock.wall())[11:19].replace(":", "")
        self.tell(election, Happening(what, message, f"{token}.{moment}", is_warning))
