"""Which resources a Worker crawls now: what etcd assigns to it, taken, changed and dropped.

`Tasks` only decides and starts; what one task does is `Job.run`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from crawler.records import Assignment, Spec
from crawler.worker_metrics import WorkerMetrics
from sidecar.core.store import KeyValue
from sidecar.election.feed import Feed

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Task:
    """One resource that is crawled.

    Attributes:
        assigned_at: the create revision of its assignment in etcd. Another one means that the
            resource was somebody else's meanwhile, or another one of that name.
        revision: of the last change of its assignment in etcd, which each write must name.
    """

    spec: Spec
    assigned_at: int
    revision: Feed[int]
    handle: asyncio.Task[None] | None = field(default=None, repr=False)


class Tasks:
    """The tasks of one Worker.

    Args:
        worker: its id; what names another one is not acted on.
        group: where tasks run.
        work: what a task does until it is cancelled; None: nothing.
    """

    def __init__(
        self,
        worker: str,
        group: asyncio.TaskGroup,
        work: Callable[[Task], Coroutine[Any, Any, None]] | None,
        metrics: WorkerMetrics,
    ) -> None:
        self._worker = worker
        self._group = group
        self._work = work
        self._metrics = metrics
        self._running: dict[bytes, Task] = {}

    def __len__(self) -> int:
        return len(self._running)

    def follow(self, assigned: Mapping[bytes, KeyValue], changed: Iterable[bytes]) -> None:
        """Bring what runs in line with what is assigned, where that has changed."""
        for key in changed:
            task, kv = self._running.get(key), assigned.get(key)
            if kv is None:
                self._drop(key)
            elif task is None or task.revision.value != kv.mod_revision:
                self._take_or_change(key, kv, task)
        self._metrics.resources.set(len(self._running))

    def drop_all(self) -> None:
        """End every task."""
        self.follow({}, [*self._running])

    def _take_or_change(self, key: bytes, kv: KeyValue, task: Task | None) -> None:
        assignment = Assignment.decode(kv.value)
        if assignment is None or assignment.worker != self._worker:
            log.warning("not assigned to this worker, ignored key=%s", key.decode(errors="replace"))
            self._drop(key)
        elif task is None:
            self._start(key, assignment.spec, kv, "taken")
        elif (task.spec, task.assigned_at) == (assignment.spec, kv.create_revision):
            task.revision.publish(kv.mod_revision)
        else:
            self._end(task)
            self._start(key, assignment.spec, kv, "changed")

    def _start(self, key: bytes, spec: Spec, kv: KeyValue, change: str) -> None:
        task = Task(spec, kv.create_revision, Feed(kv.mod_revision))
        self._running[key] = task
        if self._work is not None:
            task.handle = self._group.create_task(self._work(task), name=f"crawl-{spec.name}")
        self._metrics.changed(change)
        log.info("%s resource=%s revision=%d", change, spec.name, kv.mod_revision)

    def _drop(self, key: bytes) -> None:
        task = self._running.pop(key, None)
        if task is not None:
            self._end(task)
            self._metrics.changed("dropped")
            log.info("dropped resource=%s", task.spec.name)

    def _end(self, task: Task) -> None:
        if task.handle is not None:
            task.handle.cancel()
