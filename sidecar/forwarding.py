"""The forwarder among the other parts: it fails alone, and outlives the candidacy for a while."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from sidecar.addresses import host_of
from sidecar.core.state import ElectionState
from sidecar.election.background import Background
from sidecar.election.candidate import Candidate
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.forward.forwarder import ForwardConfig, Forwarder
from sidecar.forward.meter import ForwardMeter
from sidecar.outputs.forward_metrics import ForwardMetrics
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.keeper import StatusKeeper
from sidecar.settings import Settings

log = logging.getLogger(__name__)


class Forwarding:
    """Runs one sidecar's forwarder; made on the running loop."""

    def __init__(
        self,
        settings: Settings,
        listening: Sequence[socket.socket],
        feed: Feed[ElectionState],
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        meter = ForwardMeter()
        meter.waited = ForwardMetrics(registry, settings.store.election, meter).waited
        config = ForwardConfig(
            settings.forward,
            own_host=host_of(settings.advertise),
            wait=settings.forward_wait,
            drain=settings.forward_drain,
            most=settings.forward_max_connections,
            proxy_protocol=settings.forward_proxy_protocol,
        )
        self._linger_for = settings.forward_linger
        self._forwarder = Forwarder(config, listening, feed, clock, meter)

    def start(
        self,
        outputs: Background,
        *,
        keeper: StatusKeeper,
        candidate: Candidate,
        leaving: asyncio.Event,
        errors: OutputErrors,
    ) -> None:
        """Forward from now on, and stop the candidate once nobody is sent here any more.

        Args:
            outputs: the tasks among which it runs.
            keeper: asks it before the key is given up.
            candidate: has left when connections go elsewhere; is stopped at the very end.
            leaving: set when the sidecar is to end.
            errors: told of a failure.
        """
        keeper.add_believer(self._forwarder.settle)
        outputs.start(self._forward(errors), name="forward")
        outputs.start(self._linger(candidate, leaving), name="forward-linger")

    async def _forward(self, errors: OutputErrors) -> None:
        """Forward; should that fail, the candidate goes on without."""
        try:
            await self._forwarder.run()
        except Exception as exc:
            log.exception("forwarder failed")
            errors.failed("forward", exc)

    async def _linger(self, candidate: Candidate, leaving: asyncio.Event) -> None:
        await candidate.left.wait()
        await asyncio.sleep(self._linger_for)
        await leaving.wait()  # one that has retired is told to stop later
        await self._forwarder.close()
        candidate.stop()
