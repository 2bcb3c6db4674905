"""Reads the status directories of all sidecars, as programs beside them would."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sidecar import boottime
from sidecar.client import Leadership
from sidecar.demo.ledger import Ledger, View
from sidecar.election.ports import Clock

_LOOK_ANYWAY = 0.05  # seconds; renewals, which wake nobody, move the deadline


class Lookout:
    """Looks at every change and 20 times a second, and keeps the ledger."""

    def __init__(self, folders: Mapping[str, Path], ledger: Ledger, clock: Clock) -> None:
        self.views = {id_: View(id_) for id_ in folders}
        self._folders = folders
        self._ledger = ledger
        self._clock = clock
        self._looked = asyncio.Condition()

    async def run(self) -> None:
        """Look until cancelled."""
        wake = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for folder in self._folders.values():
                group.create_task(_wake_on_change(folder, wake), name=f"watch {folder.name}")
            while True:
                await self.look()
                try:
                    async with asyncio.timeout(_LOOK_ANYWAY):
                        await wake.wait()
                except TimeoutError:
                    pass
                wake.clear()

    async def look(self) -> None:
        """Read all files now."""
        views = self._read()
        # One may have stepped down and another begun between two reads. Only what is still so when
        # everything is read again was true at one moment.
        while len(leading := _leading(views)) > 1:
            views = self._read()
            if _leading(views) == leading:
                break
        self._ledger.note(views, self._clock.now())
        self.views = {view.id: view for view in views}
        async with self._looked:
            self._looked.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on views and ledger holds."""
        async with self._looked:
            await self._looked.wait_for(condition)

    def _read(self) -> list[View]:
        return [self._view(id_, folder / "status.json") for id_, folder in self._folders.items()]

    def _view(self, id_: str, path: Path) -> View:
        document, problem = boottime.read_status(str(path))
        if problem is not None:
            return View(id_, reason=problem)
        leads = document["role"] == "leader"
        candidates = document.get("candidates")
        return View(
            id_,
            leads=leads,
            token=_number(document, "token") if leads else 0,
            deadline=float(str(document["valid_until_boottime"])) if leads else 0.0,
            since=self._since(document.get("since")),
            reason=str(document.get("reason", "")),
            link=str(document.get("link", "")),
            candidates=tuple(map(str, candidates)) if isinstance(candidates, list) else (),
            is_paused=document.get("paused") is True,
        )

    def _since(self, stamp: object) -> float | None:
        if not isinstance(stamp, str):
            return None
        wall = dt.datetime.fromisoformat(stamp).timestamp()
        return wall - self._clock.wall() + self._clock.now()


async def _wake_on_change(folder: Path, wake: asyncio.Event) -> None:
    leadership = Leadership(folder)
    while True:
        await leadership.changed()
        wake.set()


def _leading(views: Sequence[View]) -> set[tuple[str, int]]:
    return {(view.id, view.token) for view in views if view.leads}


def _number(document: dict[str, object], name: str) -> int:
    value = document.get(name)
    return value if isinstance(value, int) else 0
