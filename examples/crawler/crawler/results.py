"""What came of a crawl, in etcd: only the Worker that has the resource can write it.

Each write is one transaction that requires the Worker's own registration, the assignment and the
results to be as this Worker last saw them. So one that was frozen, and lost the resource meanwhile,
writes nothing, and a write that was believed lost cannot land on top of a later one. The key hangs
on no lease: a counter goes on where the Worker before has left it.
"""

from __future__ import annotations

import dataclasses
import enum

from crawler import keys
from crawler.records import Page, Results
from crawler.registry import Place
from sidecar.core.store import Put, Range, Txn, Unchanged
from sidecar.election import Coordinator

PAGES_KEPT = 20
_CALL = 5.0  # seconds


class Written(enum.Enum):
    """How a write ended."""

    DONE = "done"
    REFUSED = "refused"
    """The resource is not ours any more, or its assignment has changed."""


class Ledger:
    """The results of one resource, as the Worker that has it knows them."""

    def __init__(self, coordinator: Coordinator, name: str, worker: str, place: Place) -> None:
        self.value = Results(name, worker)
        self.is_written = True
        self._coordinator = coordinator
        self._key = keys.results(name)
        self._assignment = keys.assignment(worker, name)
        self.place = place
        self._revision = 0

    async def load(self) -> None:
        """Read what is there, so that the counter goes on.

        Raises:
            CoordinatorError: etcd does not answer, or refuses.
        """
        reply = await self._coordinator.read(self._key, self._key + b"\0", timeout=_CALL)
        for kv in reply.kvs:
            self._revision = kv.mod_revision
            found = Results.decode(kv.value)
            if found is not None:
                self.value = dataclasses.replace(found, worker=self.value.worker)

    def add(self, page: Page) -> None:
        """Count a page, and keep it as the latest."""
        kept = (*self.value.pages, page)[-PAGES_KEPT:]
        self.value = dataclasses.replace(self.value, fetched=self.value.fetched + 1, pages=kept)
        self.is_written = False

    async def write(self, assigned_at: int) -> Written:
        """Write the results, if the assignment is still the one of this revision.

        Raises:
            CoordinatorError: no answer, or etcd refuses; the write may have taken effect.
        """
        value = self.value
        while True:
            seen = self._revision
            reply = await self._coordinator.txn(
                Txn(
                    guards=(
                        self.place.guard,
                        Unchanged(self._assignment, assigned_at),
                        Unchanged(self._key, seen),
                    ),
                    then=(Put(self._key, value.encode()),),
                    otherwise=(Range(self._key),),
                ),
                timeout=_CALL,
            )
            if reply.succeeded:
                self._revision = reply.header.revision
                self.is_written = self.value is value
                return Written.DONE
            # Ours may have landed unheard: then the results alone are newer, and it is tried again.
            self._revision = next((kv.mod_revision for kv in reply.ranges[0]), 0)
            if self._revision == seen:
                return Written.REFUSED
