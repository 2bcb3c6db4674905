"""Deleting resources so that no late or repeated request brings one back.

A request to add a resource can come to the store twice: its answer was lost and it was sent again,
to the same leader's store or to the next leader. "There is no such resource yet" holds for the
second time too, once the resource was deleted in between. So a deletion leaves a mark, with the id
of the request that had added the resource. Who adds requires the mark to be as it was seen, and
does not add for a request that the mark names. A mark stands for ten minutes or more, longer than
any call may take; what is later than that is not recognized.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import grpc

from crawler import keys
from crawler.fence import Fence, Written
from crawler.problems import Problem
from crawler.records import Deletion
from crawler.view import Known
from sidecar.core.store import Delete, KeyValue, Put, Unchanged
from sidecar.election import Coordinator
from sidecar.errors import CoordinatorError

log = logging.getLogger(__name__)

_KEPT = 600.0
_READ_WITHIN = 5.0
_WRITE_WITHIN = 10.0
_BATCH = 50
"""Marks in one transaction, of the 128 operations that etcd takes."""


async def delete(fence: Fence, known: Known, deadline: float) -> Written:
    """Delete a resource with its assignment and its results, if it is as it is known.

    While etcd is full it takes nothing but deletes; then no mark is left.

    Raises:
        Problem: as for `Fence.write`.
    """
    name, worker = known.resource.spec.name, known.resource.worker
    key = keys.resource(name)
    mark = Deletion(name, known.resource.request_id, fence.token)
    then: list[Put | Delete] = [Delete(key), Delete(keys.results(name))]
    if worker:
        then.append(Delete(keys.assignment(worker, name)))
    unchanged = (Unchanged(key, known.revision),)
    marked = (*then, Put(keys.deleted(name), mark.encode()))
    try:
        return await fence.write(unchanged, marked, read=(key,), deadline=deadline)
    except Problem as problem:
        if problem.code is not grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        is_touched = not problem.is_untouched
    written = await fence.write(unchanged, then, read=(key,), deadline=deadline)
    return written._replace(is_repeated=written.is_repeated or is_touched)


def is_of(mark: KeyValue | None, request_id: str) -> bool:
    """Whether a mark tells that what this request had added was deleted."""
    found = Deletion.decode(mark.value) if mark is not None else None
    return found is not None and bool(request_id) and found.request_id == request_id


async def sweep(coordinator: Coordinator, fence: Fence) -> None:
    """Remove marks that have stood for long, until the term is over or this is cancelled."""
    old: Mapping[bytes, int] = {}
    start = keys.DELETED.encode()
    while True:
        try:
            reply = await coordinator.read(
                start, keys.prefix_end(start), timeout=_READ_WITHIN, keys_only=True
            )
            found = {kv.key: kv.mod_revision for kv in reply.kvs}
            await _remove(fence, [one for one in found.items() if one in old.items()])
            old = found
        except (Problem, CoordinatorError) as exc:
            if not fence.holds():
                return
            log.info("old marks of deletions are left for later error=%s", exc)
        await asyncio.sleep(_KEPT)


async def _remove(fence: Fence, marks: list[tuple[bytes, int]]) -> None:
    """Remove marks; where one of a batch has changed meanwhile, they all stay until next time."""
    for first in range(0, len(marks), _BATCH):
        batch = marks[first : first + _BATCH]
        await fence.write(
            [Unchanged(key, revision) for key, revision in batch],
            [Delete(key) for key, _ in batch],
            read=(),
            deadline=asyncio.get_running_loop().time() + _WRITE_WITHIN,
        )
