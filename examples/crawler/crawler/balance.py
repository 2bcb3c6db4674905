"""Keeps resources with living Workers: carries out what `crawler.assignment` computes.

Several moves go into one transaction. Where one of them does not fit any more (its resource was
changed meanwhile), the batch is split, and what still does not fit is computed anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from crawler import keys
from crawler.assignment import Move, Repair, plan, repairs
from crawler.fence import Fence
from crawler.master_metrics import Metrics
from crawler.problems import Problem
from crawler.records import Assignment, Resource
from crawler.view import View
from sidecar.core.store import Delete, Put, Unchanged
from sidecar.election import Coordinator
from sidecar.errors import CoordinatorError

log = logging.getLogger(__name__)

_BATCH = 40
"""Moves in one transaction: three operations each, of the 128 that etcd takes."""
_WITHIN = 10.0
_AGAIN = 0.2
"""Seconds until a move that did not fit is computed anew."""


class Balancer:
    """Runs as long as its term; what it leaves undone the next term's does."""

    def __init__(
        self, coordinator: Coordinator, view: View, fence: Fence, metrics: Metrics
    ) -> None:
        self._coordinator = coordinator
        self._view = view
        self._fence = fence
        self._metrics = metrics

    async def run(self) -> None:
        """Settle what is unsettled, until the term is over or this is cancelled."""
        is_repaired = False
        while True:
            try:
                while not is_repaired:
                    is_repaired = await self._repair()
                await self._settle()
            except (Problem, CoordinatorError) as exc:
                if not self._fence.holds():
                    return
                log.warning("assignment is delayed error=%s", exc)
                await asyncio.sleep(_AGAIN)

    async def _settle(self) -> None:
        while True:
            self._view.unsettled.clear()
            moves = plan(self._view.placement(), self._view.nodes.keys())
            if not moves:
                await self._view.unsettled.wait()
                continue
            log.info("reassigning resources=%d workers=%d", len(moves), len(self._view.nodes))
            if not await self._carry_out(moves):
                await asyncio.sleep(_AGAIN)

    async def _carry_out(self, moves: Sequence[Move]) -> bool:
        """Return whether to go on with what is left at once: all fit, or the Workers changed."""
        workers = self._view.nodes.keys()
        fitted = True
        for first in range(0, len(moves), _BATCH):
            fitted &= await self._move(moves[first : first + _BATCH])
            if self._view.nodes.keys() != workers:
                return True
        return fitted

    async def _move(self, moves: Sequence[Move]) -> bool:
        unchanged: list[Unchanged] = []
        then: list[Put | Delete] = []
        for move in moves:
            known = self._view.get(move.resource)
            if known is None or known.resource.worker != move.source:
                continue  # deleted, or moved by what came before
            key = keys.resource(move.resource)
            resource = replace(known.resource, worker=move.target, token=self._fence.token)
            unchanged.append(Unchanged(key, known.revision))
            then += moved(resource, move.source)
        if not then:
            return True
        written = await self._fence.write(
            unchanged, then, read=(unchanged[0].key,), deadline=self._deadline()
        )
        if written.is_done:
            self._metrics.moves.inc(len(unchanged))
            await self._view.reached(written.revision)
            return True
        if len(moves) == 1:
            return False
        half = len(moves) // 2
        first = await self._move(moves[:half])
        return await self._move(moves[half:]) and first

    async def _repair(self) -> bool:
        """Make the keys of assignments be what the resources say; return True once they are."""
        start = keys.ASSIGNMENTS.encode()
        placement = self._view.placement()  # before the read: what is added meanwhile is no error
        reply = await self._coordinator.read(
            start, keys.prefix_end(start), timeout=_WITHIN, keys_only=True
        )
        found = (keys.assignment_of(kv.key) for kv in reply.kvs)
        wrong = repairs(placement, [pair for pair in found if pair is not None])
        return all([await self._mend(repair) for repair in wrong])

    def _is_wrong_still(self, repair: Repair) -> bool:
        known = self._view.get(repair.resource)
        return repair.is_missing == (known is not None and known.resource.worker == repair.worker)

    async def _mend(self, repair: Repair) -> bool:
        if not self._is_wrong_still(repair):
            return True
        known = self._view.get(repair.resource)
        key = keys.resource(repair.resource)
        assignment = keys.assignment(repair.worker, repair.resource)
        then: Put | Delete = Delete(assignment)
        if repair.is_missing and known is not None:
            record = Assignment(known.resource.spec, repair.worker, self._fence.token)
            then = Put(assignment, record.encode())
        written = await self._fence.write(
            (Unchanged(key, known.revision if known else 0),),
            (then,),
            read=(key,),
            deadline=self._deadline(),
        )
        if written.is_done:
            log.warning("assignment mended worker=%s resource=%s", repair.worker, repair.resource)
        return written.is_done

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + _WITHIN


def moved(resource: Resource, source: str) -> list[Put | Delete]:
    """Return the writes that give a resource to its Worker and take it from another."""
    name = resource.spec.name
    taken = [Delete(keys.assignment(source, name))] if source else []
    assignment = Assignment(resource.spec, resource.worker, resource.token)
    return [
        Put(keys.resource(name), resource.encode()),
        *taken,
        Put(keys.assignment(resource.worker, name), assignment.encode()),
    ]
