"""An Election that cannot be read says why, and nothing is done in its name."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sidecar.election.background import Background
from sidecar.operator.reconciling import ElectionWorker
from sidecar.operator.unreadable import Unreadable, read
from tests.operator.test_hub import Clock
from tests.operator.things import Document, document, election, pod, tools_for

WRONG: Any = {"maxTermDuration": "1234567890s"}
SAID = "spec.maxTermDuration: '1234567890s' is not a duration; give one such as 90m or 24h"


def test_what_can_be_read_is_and_what_cannot_is_told_by_its_field() -> None:
    assert read(document()) == election()
    found = read(document(status={"token": 7}, **WRONG))
    assert isinstance(found, Unreadable)
    assert found.problem == SAID
    assert (found.key, found.uid, found.generation) == (("shop", "master"), "uid-of-election", 3)
    assert found.status == {"token": 7}
    lacking = read({**document(), "spec": {}})
    assert isinstance(lacking, Unreadable)
    assert lacking.problem == "spec.election: is missing, or no text"


class World:
    """An API that takes statuses and Events, and nothing else."""

    def __init__(self) -> None:
        self.statuses: list[Document] = []
        self.events: list[Document] = []
        self.written = asyncio.Event()

    async def patch(self, path: str, body: Document) -> Document:
        assert path.endswith("/elections/master/status")
        self.statuses.append(body["status"])
        return {"metadata": {"resourceVersion": "8"}, "status": body["status"]}

    async def create(self, path: str, body: Document) -> Document:
        assert path.endswith("/events")
        self.events.append(body)
        self.written.set()
        return body


@pytest.mark.timeout(60)
async def test_its_status_says_why_and_no_pod_is_touched() -> None:
    world = World()
    last = {"leader": {"id": "m-0"}, "token": 10, "service": "master-leader"}
    unread = read(document(status=last, **WRONG))
    tools = replace(tools_for(world, Clock()), pods=lambda _: [pod("m-0", role="nonsense")])
    worker = ElectionWorker(unread, tools)
    async with Background() as tasks:
        tasks.start(worker.run(), name="worker")
        await world.written.wait()
        (status,) = world.statuses
        assert (status["health"], worker.health) == ("Invalid", "Invalid")
        assert {c["message"] for c in status["conditions"]} == {SAID}
        assert {c["status"] for c in status["conditions"]} == {"Unknown"}
        assert "ServiceFollows" in {c["type"] for c in status["conditions"]}
        assert "leader" not in status  # nothing of it is changed
        (event,) = world.events
        assert (event["reason"], event["type"]) == ("Invalid", "Warning")
        assert event["message"] == SAID
        world.written.clear()
        other = replace(read(document(maintenanceWindows=[{"start": "x"}])), version="9")
        assert worker.update(other)
        await world.written.wait()
        assert "spec.maintenanceWindows.start" in world.statuses[-1]["conditions"][0]["message"]
        assert not worker.update(election())
