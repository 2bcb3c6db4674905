"""What the status directory remembers for a restart, and who must stop believing before the end.

`StatusKeeper` is the sidecar's `sidecar.election.ports.Keeper`. Its writes go through one daemon
thread in the order of the calls, so that a note of a candidacy can never land after the note
was meant to be gone; a disk that hangs delays nobody else, and not the process's exit either.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable, Coroutine

from sidecar.election.ports import Standing
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.status_dir import SeenToken, SessionRecord, StatusDirectory

Settle = Callable[[], Coroutine[None, None, None]]
"""Waits until nobody believes in us by one output."""

OUTPUT = "session_file"
_FORGET_WITHIN = 1.0  # seconds; a disk that is slower counts as one that cannot be written


class StatusKeeper:
    """Remembers in a status directory, and settles a list of outputs.

    Args:
        directory: locked by this process.
        election: the election's name.
        id_: the candidate's id.
        boot_id: of this boot of the machine.
        errors: told of every write that fails.
    """

    def __init__(
        self,
        directory: StatusDirectory,
        *,
        election: str,
        id_: str,
        boot_id: str,
        errors: OutputErrors,
    ) -> None:
        self._directory = directory
        self._election = election
        self._id = id_
        self._boot_id = boot_id
        self._errors = errors
        self._believers: list[Settle] = []
        self._jobs: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=OUTPUT, daemon=True).start()

    def add_believer(self, settle: Settle) -> None:
        """Have `settle` wait for this too, before the key is given up."""
        self._believers.append(settle)

    def remember(self, standing: Standing) -> None:
        """Write session.json, soon."""
        record = SessionRecord(
            boot_id=self._boot_id,
            election=self._election,
            id=self._id,
            cluster_id=standing.cluster_id,
            lease=standing.lease,
            key=standing.key,
            token=standing.token,
            ttl=standing.ttl,
        )
        self._jobs.put(lambda: self._try(lambda: self._directory.write_session(record)))

    def saw(self, token: int, cluster_id: int) -> None:
        """Write the largest token, soon."""
        seen = SeenToken(self._election, token, cluster_id)
        self._jobs.put(lambda: self._try(lambda: self._directory.write_seen(seen)))

    async def forget(self) -> bool:
        """Remove session.json; False when it may still be there."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()
        outcome: list[bool] = []

        def remove() -> None:
            outcome.append(self._try(self._directory.remove_session))
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        self._jobs.put(remove)
        try:
            async with asyncio.timeout(_FORGET_WITHIN):
                await done.wait()
        except TimeoutError:
            return False
        return outcome[0]

    async def settle(self) -> None:
        """Wait until none of the believers can take us for the leader any more."""
        async with asyncio.TaskGroup() as group:
            for settle in self._believers:
                group.create_task(settle())

    def _try(self, write: Callable[[], None]) -> bool:
        try:
            write()
        except OSError as exc:
            self._errors.failed(OUTPUT, exc)
            return False
        self._errors.worked(OUTPUT)
        return True

    def _work(self) -> None:
        while True:
            self._jobs.get()()
