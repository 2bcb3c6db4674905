"""The own pod as an output: its label, its annotations, its Events, put together.

Whatever goes wrong in here is counted, logged and tried again, and stays in here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from sidecar.core.state import ElectionState
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.errors import ApiError
from sidecar.kube import events, label
from sidecar.kube.access import PodAccess
from sidecar.kube.api import ApiServer
from sidecar.kube.events import PodEvents
from sidecar.kube.label import Failures, PodLabel, PodMeter
from sidecar.kube.preflight import missing_permissions

log = logging.getLogger(__name__)

_LONGEST_SETTLE = 0.3  # seconds that giving up the key waits for the label
_LAST_WORDS = 0.5  # seconds for what is not told yet when the sidecar ends
_LABEL_FIRST = 0.3  # seconds that an Event waits for the label; less than the last words take


class OwnPod:
    """Tells Kubernetes what the feed says.

    Args:
        access: the pod, and the way to the API server.
        feed: of states.
        clock: of this machine.
        may_shrink: tokens may have gone back (`--accept-token-reset`).
        drain: seconds between a step-down and giving the key up.
        failures: told of what goes wrong.
        meter: counts patches.
    """

    def __init__(
        self,
        access: PodAccess,
        feed: Feed[ElectionState],
        clock: Clock,
        *,
        may_shrink: bool,
        drain: float,
        failures: Failures,
        meter: PodMeter,
    ) -> None:
        self._access = access
        self._failures = failures
        self._settle_within = min(drain, _LONGEST_SETTLE)
        # Two connections: an Event never stands in the way of a label.
        self._label_api, self._event_api = ApiServer(access), ApiServer(access)
        self._label = PodLabel(
            self._label_api,
            feed,
            clock,
            uid=access.uid,
            may_shrink=may_shrink,
            failures=failures,
            meter=meter,
        )
        # An Event needs a connection anew: making it takes the processor from the label's patch.
        self._events = PodEvents(
            self._event_api,
            access,
            feed,
            clock,
            failures,
            first=lambda: self._label.settle(_LABEL_FIRST),
        )

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        try:
            await self._preflight()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guarded(label.OUTPUT, self._label.run()), name="label")
                group.create_task(self._guarded(events.OUTPUT, self._events.run()), name="events")
        finally:
            self._label_api.close()
            self._event_api.close()

    async def settle(self) -> None:
        """Wait until the pod says follower, no longer than the drain, and never beyond 300 ms."""
        await self._label.settle(self._settle_within)

    async def finish(self) -> None:
        """Wait until all is told, for half a second: the process is about to end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._label.settle(_LAST_WORDS))
            group.create_task(self._events.finish(_LAST_WORDS))

    async def _preflight(self) -> None:
        lacking = await missing_permissions(self._label_api, self._access)
        for output, phrase in (
            (label.OUTPUT, lacking["label"]),
            (events.OUTPUT, lacking["events"]),
        ):
            if phrase:
                self._failures.failed(output, ApiError(phrase))

    async def _guarded(self, output: str, work: Coroutine[Any, Any, None]) -> None:
        """Keep a defect of an output away from the election."""
        try:
            await work
        except Exception as exc:
            log.exception("output ended output=%s", output)
            self._failures.failed(output, exc)
