"""One candidate, or many, of our library in one process: the mirror of the Go rival `goelect`.

Commands: "campaign VALUE" (everybody who is out stands), "resign" (whoever of ours leads),
"quit"; the end of stdin counts as "quit". Answers: `ready`, `campaigning`, `standing` (all of them
stand, and could act), `elected`, `resigned`, `error`. To let a leader crash, kill the process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from contextlib import AsyncExitStack

from benchmarks.commands import commands
from benchmarks.report import now, tell
from sidecar.core.candidacy import Phase
from sidecar.core.lease import NEVER
from sidecar.election import Election, Observer, Session
from sidecar.errors import SidecarError
from sidecar.etcd import EtcdCoordinator


class Stand:
    """One candidate with a lease and a place in the queue of its own."""

    def __init__(
        self, store: EtcdCoordinator, name: str, ttl: float, observer: Observer | None
    ) -> None:
        self._session = Session(store, ttl=ttl)
        self._name = name
        self._observer = observer
        self.election: Election | None = None
        self._opened = asyncio.Event()
        self.called = asyncio.Event()
        self.value = ""

    @property
    def is_out(self) -> bool:
        """Whether it waits to be told to campaign."""
        return self.election is None or self.election.phase is Phase.OUT

    async def run(self) -> None:
        """Campaign as often as told, until cancelled or the lease is lost."""
        try:
            await self.called.wait()
            async with (
                self._session,
                Election(self._session, self._name, observer=self._observer) as self.election,
            ):
                self._opened.set()
                while True:
                    await self.called.wait()
                    self.called.clear()
                    await self._campaign(self.election)
        except SidecarError as exc:
            tell("error", now(), during="campaign", message=f"{type(exc).__name__}: {exc}")

    async def stands(self) -> None:
        """Wait until it stands in the queue as its own watch shows it, with a proof."""
        await self._opened.wait()
        election = self.election
        if election is not None:
            await election.until(lambda: election.entry is not None and election.deadline > NEVER)

    async def _campaign(self, election: Election) -> None:
        called = now()
        await election.campaign(self.value)
        at = now()
        tell(
            "elected",
            at,
            value=self.value,
            key=election.key,
            rev=election.rev,
            t_called=called,
        )


class Stands:
    """All candidates of this process."""

    def __init__(self, stands: list[Stand]) -> None:
        self.all = stands

    async def obey(self, tasks: asyncio.TaskGroup) -> None:
        """Read commands until the end."""
        async for command, argument in commands():
            if command == "campaign":
                self._campaign(argument, tasks)
            elif command == "resign":
                await self._resign()
            else:
                tell("error", now(), during=command, message="no such command")

    def _campaign(self, value: str, tasks: asyncio.TaskGroup) -> None:
        called = [stand for stand in self.all if stand.is_out]
        tell("campaigning", now(), value=value, count=len(called))
        for stand in called:
            stand.value = value
            stand.called.set()
        tasks.create_task(self._tell_standing(called), name="tell-standing")

    async def _tell_standing(self, called: list[Stand]) -> None:
        for stand in called:
            await stand.stands()
        tell("standing", now(), count=len(called))

    async def _resign(self) -> None:
        leading = [
            s.election for s in self.all if s.election is not None and s.election.is_leader()
        ]
        if not leading:
            tell("error", now(), during="resign", message="none of these leads")
            return
        election = leading[0]
        key, rev = election.key, election.rev
        called = now()
        await election.resign()
        done = now()
        tell("resigned", done, key=key, rev=rev, t_called=called, t_done=done)


async def _main(options: argparse.Namespace) -> None:
    name = options.election
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(EtcdCoordinator(options.endpoints))
        shared = Observer(store, name) if options.share_watch else None
        if shared is not None:
            await stack.enter_async_context(shared)
            await shared.synced()
        stands = Stands([Stand(store, name, options.ttl, shared) for _ in range(options.count)])
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(stand.run(), name="stand") for stand in stands.all]
            tell("ready", now())
            await stands.obey(tasks)
            for task in running:
                task.cancel()


def main() -> None:
    """Run until told to quit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoints", required=True)
    parser.add_argument("--election", default="/resources/election")
    parser.add_argument("--ttl", type=float, default=5.0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--share-watch", action="store_true", help="one watch for all of them")
    options = parser.parse_args()
    # As `leader-sidecar run` does it, and any program may that cares for its tail latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    asyncio.run(_main(options))


if __name__ == "__main__":
    main()
