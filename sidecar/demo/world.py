"""What the demo plays with: one etcd, three sidecars, and the ledger of what they did."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sidecar.demo.child import Child
from sidecar.demo.etcd import Etcd, find_etcd
from sidecar.demo.ledger import Interval, Ledger, View
from sidecar.demo.lookout import Lookout
from sidecar.demo.ports import LOOPBACK, ReservedPort
from sidecar.demo.web import get
from sidecar.election.ports import Clock, SystemClock
from sidecar.errors import SidecarError

T = TypeVar("T")

ELECTION = "/resources/election"
CANDIDATES = ("master-1", "master-2", "master-3")
_ADVERTISED_PORT = 9090  # nothing listens there: the sidecars tell the address, they do not use it
_COMMAND_WITHIN = 20.0  # seconds
_OK = 200


class PromiseBroken(SidecarError):
    """Something did not go as promised; the message says which promise and what was seen."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sidecar."""

    id: str
    child: Child
    port: int


class World:
    """The processes, and what can be done to them. Made by `world`, which also ends them."""

    def __init__(self, ttl: float, port: int, stack: ExitStack) -> None:
        """Prepare everything; nothing runs yet.

        Raises:
            ConfigError: there is no etcd, or the port is taken.
        """
        program = find_etcd()
        self.ttl = ttl
        self.clock: Clock = SystemClock()
        self.ledger = Ledger()
        ports = [ReservedPort(port if number == 0 else 0) for number in range(2 + len(CANDIDATES))]
        for reserved in ports:
            stack.callback(reserved.close)
        self.folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="leader-sidecar-demo-"))
        )
        self.etcd = Etcd(program, ports[0], ports[1], self.folder)
        stack.callback(self.etcd.child.close)
        self.candidates: dict[str, Candidate] = {}
        for place, (id_, own) in enumerate(zip(CANDIDATES, ports[2:], strict=True), 1):
            argv = self._argv(id_, own.number, _ADVERTISED_PORT + place)
            candidate = Candidate(id_, Child(id_, argv, self.folder), own.number)
            stack.callback(candidate.child.close)
            self.candidates[id_] = candidate
        self.lookout = Lookout(
            {id_: self.folder / id_ for id_ in CANDIDATES}, self.ledger, self.clock
        )

    async def start(self) -> None:
        """Start etcd, then the sidecars."""
        await self.etcd.start()
        for candidate in self.candidates.values():
            candidate.child.start()
        # While they start: the library that carries commands takes its time to load.
        await asyncio.to_thread(_load_commands)

    @property
    def views(self) -> dict[str, View]:
        """The status files as they were at the last look."""
        return self.lookout.views

    def leader(self) -> View | None:
        """Return the candidate that may act now, None if nobody may."""
        now = self.clock.now()
        return next((v for v in self.views.values() if v.leads and now < v.deadline), None)

    def is_settled(self) -> bool:
        """Whether somebody leads and all stand in the queue, by everybody's own word."""
        return self.leader() is not None and all(
            view.link == "connected" and {*view.candidates} == {*CANDIDATES}
            for view in self.views.values()
        )

    async def until(self, condition: Callable[[], T], within: float, promise: str) -> T:
        """Wait until the condition holds and return its value.

        Raises:
            PromiseBroken: it did not within so many seconds, or a process ended by itself.
        """

        def holds() -> bool:
            self.check_processes()
            return bool(condition())

        try:
            async with asyncio.timeout(within):
                await self.lookout.until(holds)
        except TimeoutError:
            raise PromiseBroken(f"{promise}, but not within {within:g} s") from None
        return condition()

    def check_processes(self) -> None:
        """Raise `PromiseBroken` when a process that is meant to run has ended."""
        for child in (self.etcd.child, *(c.child for c in self.candidates.values())):
            if child.is_wanted and not child.is_running:
                raise PromiseBroken(f"{child.name} ended by itself: {child.last_words()}")

    def interval_after(self, token: int) -> Interval | None:
        """Return the first interval of a later term, None if there is none yet."""
        return next((i for i in self.ledger.intervals if i.token > token), None)

    async def handover(self) -> None:
        """Have the leader hand over to the next in the queue."""
        await self._command("handover")

    async def pause(self) -> None:
        """Let nobody lead until `resume`."""
        await self._command("pause")

    async def resume(self) -> None:
        """End the pause."""
        await self._command("resume")

    async def says_leader(self, id_: str) -> bool:
        """Ask a sidecar over HTTP whether it leads."""
        status, _ = await get(self.candidates[id_].port, "/leader")
        return status == _OK

    async def check_history(self) -> int:
        """Judge the history that the sidecars recorded in etcd; return the number of terms in it.

        Raises:
            PromiseBroken: two terms overlap, or a token did not grow.
        """
        _, body = await get(next(iter(self.candidates.values())).port, "/history")
        terms = json.loads(body)
        for old, new in itertools.pairwise(terms):
            if old["token"] >= new["token"]:
                raise PromiseBroken(f"tokens only grow, but /history has {old} before {new}")
            # Stamps of one form, so they compare as texts.
            if old["until"] is not None and old["until"] > new["from"]:
                raise PromiseBroken(f"one leads at a time, but /history has {old} and {new}")
        return len(terms)

    async def _command(self, name: str) -> None:
        # Here, because it loads grpc, for which --help and bad options need not wait.
        from sidecar.election.commands import Commands  # noqa: PLC0415
        from sidecar.etcd.coordinator import EtcdCoordinator  # noqa: PLC0415

        async with EtcdCoordinator(self.etcd.endpoint) as etcd:
            commands = Commands(etcd, ELECTION, within=_COMMAND_WITHIN)
            command: Callable[[], Awaitable[object]] = getattr(commands, name)
            await command()

    def _argv(self, id_: str, port: int, advertised: int) -> list[str]:
        flags = {
            "election": ELECTION,
            "id": id_,
            "advertise": f"{LOOPBACK}:{advertised}",
            "endpoints": self.etcd.endpoint,
            "ttl": f"{self.ttl:g}",
            "status-dir": str(self.folder / id_),
            "http": f"{LOOPBACK}:{port}",
        }
        options = (part for flag, value in flags.items() for part in (f"--{flag}", value))
        return [sys.executable, "-m", "sidecar", "run", *options]


@contextmanager
def world(ttl: float, port: int = 0) -> Iterator[World]:
    """Make a world, and leave no process and no file of it behind.

    The clean-up awaits nothing, so that no second signal can cut it short.

    Args:
        ttl: of the sidecars' leases, seconds.
        port: of etcd; 0: any free one.

    Raises:
        ConfigError: there is no etcd, or the port is taken.
    """
    with ExitStack() as stack:
        yield World(ttl, port, stack)


def _load_commands() -> None:
    import sidecar.election.commands  # noqa: PLC0415
    import sidecar.etcd.coordinator  # noqa: F401, PLC0415
