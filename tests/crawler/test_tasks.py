"""Which assignments are one task, and which begin another."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from crawler import keys
from crawler.records import Assignment, Spec
from crawler.tasks import Task, Tasks
from crawler.worker_metrics import WorkerMetrics

from sidecar.core.store import KeyValue

SPEC = Spec("news", ("http://news.example/",))
KEY = keys.assignment("1", "news")


def assigned(created: int, changed: int, spec: Spec = SPEC) -> dict[bytes, KeyValue]:
    return {KEY: KeyValue(KEY, Assignment(spec, "1").encode(), created, changed)}


class Crawls:
    """What a Worker does: the tasks begun, and those ended."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.begun: list[Task] = []
        self.ended: list[Task] = []
        self.tasks = Tasks("1", group, self._work, WorkerMetrics())

    async def follow(self, found: dict[bytes, KeyValue]) -> None:
        self.tasks.follow(found, {KEY, *found})
        await asyncio.sleep(0)  # what was begun runs to its wait, what was cancelled ends

    async def _work(self, task: Task) -> None:
        self.begun.append(task)
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.append(task)


@pytest.fixture
async def crawls() -> AsyncIterator[Crawls]:
    async with asyncio.TaskGroup() as group:
        made = Crawls(group)
        yield made
        made.tasks.drop_all()


async def test_an_assignment_written_anew_goes_on_as_the_same_task(crawls: Crawls) -> None:
    await crawls.follow(assigned(5, 5))
    await crawls.follow(assigned(5, 9))
    (task,) = crawls.begun
    assert task.revision.value == 9
    assert crawls.ended == []


async def test_a_resource_that_was_away_unseen_is_another_task(crawls: Crawls) -> None:
    """Its results may be another Worker's by now: what the old task counted is void."""
    await crawls.follow(assigned(5, 5))
    await crawls.follow(assigned(9, 9))
    old, new = crawls.begun
    assert crawls.ended == [old]
    assert old.revision.value == 5  # nothing more can be written by its name
    assert (new.assigned_at, new.revision.value) == (9, 9)


async def test_another_content_is_another_task(crawls: Crawls) -> None:
    await crawls.follow(assigned(5, 5))
    await crawls.follow(assigned(5, 9, Spec("news", SPEC.urls, depth=1)))
    assert crawls.ended == crawls.begun[:1]
    assert len(crawls.begun) == 2
