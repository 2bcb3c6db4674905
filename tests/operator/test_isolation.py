"""What is wrong with one Election is its own affair."""

import asyncio
from typing import Any

from sidecar.election.background import Background
from sidecar.election.ports import SystemClock
from sidecar.operator.reconciling import ElectionWorker
from sidecar.operator.stores import Stores
from tests.operator.things import Document, election, tools_for


class Broken:
    """An API server whose Secrets nobody has thought of; notes what is written."""

    def __init__(self) -> None:
        self.asked = 0
        self.again = asyncio.Event()
        self.statuses: list[Document] = []

    async def get(self, path: str) -> Document:
        self.asked += 1
        if self.asked > 1:
            self.again.set()
        raise ZeroDivisionError(path)

    async def patch(self, path: str, body: Document) -> Document:
        self.statuses.append(body["status"])
        return {}

    async def create(self, path: str, body: Document) -> Document:
        return {}


async def test_a_worker_that_fails_in_a_way_nobody_thought_of_tries_again_and_says_so() -> None:
    api = Broken()
    async with Background() as stores, asyncio.timeout(60):
        tools = tools_for(api, SystemClock(), Stores(SystemClock(), stores))
        etcd: Any = {"endpoints": ["https://etcd:2379"], "tlsSecret": "odd"}
        worker = ElectionWorker(election(etcd=etcd), tools)
        async with Background() as workers:
            workers.start(worker.run(), name="worker")
            await api.again.wait()
    assert api.statuses[0]["health"] == "Invalid"
    assert "ZeroDivisionError" in str(api.statuses[0]["conditions"])
