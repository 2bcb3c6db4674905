"""What the leading Master does, for one term: it serves calls and keeps Workers busy.

Calls write through the `Fence` only and read from the `View`; nothing else is remembered.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from crawler import checks, deletions, keys
from crawler import crawler_pb2 as pb
from crawler.balance import Balancer
from crawler.fence import Fence, Written
from crawler.master_metrics import Metrics
from crawler.problems import Doubt, exists, not_found, not_the_leader
from crawler.records import Assignment, Node, Resource, Spec
from crawler.registry import living
from crawler.view import Known, View
from sidecar.core.store import Put, Unchanged
from sidecar.election import Coordinator
from sidecar.election.background import Background

log = logging.getLogger(__name__)


class Leader:
    """One term of one Master; an async context manager. Entering it does not wait for etcd."""

    def __init__(
        self, coordinator: Coordinator, registry_prefix: str, fence: Fence, metrics: Metrics
    ) -> None:
        self.token = fence.token
        self._coordinator = coordinator
        self._registry_prefix = registry_prefix
        self._fence = fence
        self._metrics = metrics
        self._view = View(coordinator)
        self._ready = asyncio.Event()
        self._is_over = False
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start(self._view.follow(), name=f"view-{self.token}")
        self._tasks.start(self._view.check(), name=f"check-{self.token}")
        self._tasks.start(self._lead(), name=f"term-{self.token}")
        sweeping = deletions.sweep(self._coordinator, self._fence)
        self._tasks.start(sweeping, name=f"sweep-{self.token}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._ready.set()
        self._view.close()
        await self._tasks.__aexit__(kind, exc, traceback)

    async def add(self, request: pb.ResourceSpec, deadline: float) -> pb.NodeSpec:
        """Add a resource and assign it, in one transaction; a repeated request changes nothing.

        Not even when the resource was deleted meanwhile: see `crawler.deletions`.
        """
        spec = checks.spec(request)
        await self._begun()
        key, mark, mark_at = keys.resource(spec.name), keys.deleted(spec.name), 0
        with Doubt() as doubt:
            while True:
                known = self._view.get(spec.name)
                if known is not None:
                    return self._as_before(known, spec)
                with self._view.reserve(spec.name) as worker:
                    resource = Resource(spec, worker, request.request_id, self.token)
                    written = await self._fence.write(
                        (Unchanged(key, 0), Unchanged(mark, mark_at)),
                        puts(resource),
                        read=(key, mark),
                        deadline=deadline,
                    )
                    doubt.note(is_untouched=not written.is_repeated)
                    await self._catch_up(written)
                if written.is_done:
                    return self._node(worker)
                found, marked = written.found
                if found is None and deletions.is_of(marked, request.request_id):
                    return pb.NodeSpec()
                mark_at = marked.mod_revision if marked else 0

    async def delete(
        self, request: pb.DeleteResourceRequest, deadline: float
    ) -> pb.DeleteResourceReply:
        """Delete a resource with its assignment and its results."""
        name = checks.name(request.name)
        await self._begun()
        while True:
            known = self._known(name)
            written = await deletions.delete(self._fence, known, deadline)
            await self._catch_up(written)
            if written.is_done:
                return pb.DeleteResourceReply()
            (found,) = written.found
            if written.is_repeated and (found is None or found.create_revision != known.added_at):
                return pb.DeleteResourceReply()
            if found is None:
                raise not_found(name)

    async def get(self, request: pb.GetResourceRequest, deadline: float) -> pb.Resource:
        """Return a resource."""
        del deadline  # it is the caller's to watch, and nothing here goes on after it
        name = checks.name(request.name)
        await self._begun()
        known = self._known(name)
        self._still_leads()
        return self._message(known)

    async def list(
        self, request: pb.ListResourcesRequest, deadline: float
    ) -> pb.ListResourcesReply:
        """Return a page of resources."""
        del deadline
        size = checks.page_size(request.page_size)
        await self._begun()
        page, is_more = self._view.page(request.page_token, size)
        self._still_leads()
        return pb.ListResourcesReply(
            resources=[self._message(known) for known in page],
            next_page_token=page[-1].resource.spec.name if is_more else "",
        )

    async def nodes(self, request: pb.ListNodesRequest, deadline: float) -> pb.ListNodesReply:
        """Return the living Workers."""
        del request, deadline
        await self._begun()
        self._still_leads()
        return pb.ListNodesReply(nodes=[self._node(worker) for worker in sorted(self._view.nodes)])

    async def _lead(self) -> None:
        began = asyncio.get_running_loop().time()
        service = keys.WORKER_SERVICE
        async with living(self._coordinator, self._registry_prefix, service) as nodes:
            nodes.listen(lambda: self._view.workers_changed(nodes.value))
            self._view.workers_changed(nodes.value)
            await self._view.filled()
            self._ready.set()
            took = asyncio.get_running_loop().time() - began
            log.info(
                "term begins token=%d resources=%d workers=%d filled=%.3fs",
                *(self.token, len(self._view), len(nodes.value), took),
            )
            await Balancer(self._coordinator, self._view, self._fence, self._metrics).run()

    async def _begun(self) -> None:
        """Wait until the view is filled; nothing is served before."""
        await self._ready.wait()
        if self._is_over:
            raise not_the_leader()

    def _still_leads(self) -> None:
        """Raise unless the term goes on: what was read before was then read within it."""
        if not self._fence.holds():
            raise not_the_leader()

    async def _catch_up(self, written: Written) -> None:
        """Wait until the view shows what was written, or what stood in the way."""
        if written.is_done:
            await self._view.reached(written.revision)
        elif (found := written.found[0]) is not None:
            if Resource.decode(found.value) is None:
                raise exists(found.key.decode(errors="replace"))
            await self._view.reached(found.mod_revision)

    def _as_before(self, known: Known, spec: Spec) -> pb.NodeSpec:
        if known.resource.spec != spec:
            raise exists(spec.name)
        self._still_leads()
        return self._node(known.resource.worker)

    def _known(self, name: str) -> Known:
        known = self._view.get(name)
        if known is None:
            self._still_leads()
            raise not_found(name)
        return known

    def _message(self, known: Known) -> pb.Resource:
        spec, resource = known.resource.spec, known.resource
        return pb.Resource(
            spec=pb.ResourceSpec(
                name=spec.name,
                urls=spec.urls,
                depth=spec.depth,
                rate=spec.rate,
                request_id=resource.request_id,
            ),
            node=self._node(resource.worker),
            revision=known.revision,
            token=resource.token,
        )

    def _node(self, worker: str) -> pb.NodeSpec:
        if not worker:
            return pb.NodeSpec()
        node = self._view.nodes.get(worker) or Node(keys.WORKER_SERVICE, worker, "")
        return pb.NodeSpec(id=worker, address=node.address, resources=self._view.load(worker))


def puts(resource: Resource) -> tuple[Put, ...]:
    """Return the writes that store a resource, and its assignment where it has a Worker."""
    name, worker = resource.spec.name, resource.worker
    stored = Put(keys.resource(name), resource.encode())
    if not worker:
        return (stored,)
    assignment = Assignment(resource.spec, worker, resource.token)
    return stored, Put(keys.assignment(worker, name), assignment.encode())
