"""Whether this Master leads, and who does: the sidecar's word, followed.

The status file is asked anew at each call. This only waits for changes, begins and ends the terms
of this Master, and writes down who leads.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from crawler.leader import Leader
from sidecar.addresses import parse_target
from sidecar.client import LeaderInfo, Leadership, Status, Term
from sidecar.election.feed import Feed

log = logging.getLogger(__name__)

_MASTER_ID = re.compile(r"master[0-9]+-(.+:[0-9]+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """Who led when the status last changed."""

    leader: LeaderInfo | None
    token: int
    """Of the own term, 0 for none."""


class Standing:
    """Follows the sidecar of one Master.

    Attributes:
        seen: a feed of who leads; what is newer is in the status file.
        leader: the own term, as long as it goes on.
    """

    def __init__(
        self,
        master_id: str,
        leadership: Leadership,
        begin: Callable[[Term], Leader],
    ) -> None:
        """Call `begin` at the start of each term."""
        self.master_id = master_id
        self.leadership = leadership
        self.seen = Feed(Seen(None, 0))
        self.leader: Leader | None = None
        self._begin = begin

    async def first_leader(self) -> LeaderInfo:
        """Wait until somebody has led, for the first time."""
        async for seen in self.seen.follow():
            if seen.leader is not None:
                return seen.leader
        raise AssertionError("a feed never ends")

    async def run(self) -> None:
        """Follow until cancelled."""
        status = self.leadership.status()
        while True:
            if status.term is None:
                self._note(status)
                status = await self.leadership.changed(since=status)
            else:
                status = await self._lead(status, status.term)

    async def print_leader(self, every: float) -> None:
        """Log who leads, every so many seconds."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += every  # one ticker, however long the rest takes
            await asyncio.sleep(due - loop.time())
            leader = self.leadership.leader
            log.info("leader=%s", leader.id if leader else "none")

    async def _lead(self, status: Status, term: Term) -> Status:
        """Lead for one term; return the status that ended it."""
        async with AsyncExitStack() as stack:
            self.leader = await stack.enter_async_context(self._begin(term))
            try:
                while status.term is not None and status.term.token == term.token:
                    self._note(status)
                    status = await self.leadership.changed(since=status)
            finally:
                self.leader = None
        return status

    def _note(self, status: Status) -> None:
        before = self.seen.value
        now = Seen(status.leader, status.term.token if status.term else 0)
        if _term(now.leader) != _term(before.leader):
            log.info(
                "watch leader change old=%s new=%s",
                before.leader.id if before.leader else "none",
                now.leader.id if now.leader else "none",
            )
        if now.token and now.token != before.token:
            log.info("master change to leader id=%s token=%d", self.master_id, now.token)
        elif before.token and not now.token:
            log.info("master change to follower id=%s reason=%s", self.master_id, status.reason)
        self.seen.publish(now)


def target(leader: LeaderInfo, grpc_port: int) -> str:
    """Return where the leader answers gRPC calls.

    Its id says so when it has the form of a Master's; else its advertised address does, and the
    own port where that has none.

    Raises:
        ValueError: neither tells an address.
    """
    found = _MASTER_ID.fullmatch(leader.id)
    if found is not None:
        return str(parse_target(found[1]))
    try:
        return str(parse_target(leader.address))
    except ValueError:
        return str(parse_target(f"{leader.address}:{grpc_port}"))


def _term(leader: LeaderInfo | None) -> tuple[str, int] | None:
    return None if leader is None else (leader.key, leader.token)
