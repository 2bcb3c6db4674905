"""A store that nobody asks anything may be gone unnoticed."""

import asyncio
import logging

from crawler import keys
from sidecar.election import Coordinator
from sidecar.errors import CoordinatorError

log = logging.getLogger(__name__)

_EVERY = 2.0
"""Seconds between two probes, and for an answer to one: both together end before a lease does."""


async def probe(coordinator: Coordinator) -> None:
    """Find a dead endpoint while nobody calls, until cancelled.

    Watches, and a term that is to begin, use another one then.
    """
    start = keys.RESOURCES.encode()
    while True:
        await asyncio.sleep(_EVERY)
        try:
            await coordinator.read(start, start + b"\0", timeout=_EVERY)
        except CoordinatorError as exc:
            log.debug("probe failed error=%s", exc)
