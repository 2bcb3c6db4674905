"""Programs and sidecars in a simulated world where every message and pause has its exact length."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from sidecar.core.codec import Proposal, encode_proposal
from sidecar.core.keys import Layout
from sidecar.core.store import Delete, Put, Txn, TxnReply
from sidecar.election import Election, Session
from sidecar.election.ports import NoMeter
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.history import Acting
from tests.support.sim_network import Weather
from tests.support.sim_process import Process
from tests.support.sim_world import ELECTION, Simulation

T = TypeVar("T")

TTL = 5.0
MARGIN = 0.5  # the least one for this TTL
RENEW_EVERY = 1.0
WAY = 0.001
TRIP = 2 * WAY
EXACT = Weather(least=WAY, most=WAY)
SOON = 1.0
LAYOUT = Layout(ELECTION)


def exactly(seconds: float) -> object:
    """Equal but for the rounding of clocks that show large numbers."""
    return pytest.approx(seconds, abs=1e-6)


class Steady(random.Random):
    """No jitter: every pause has its full length. What it draws as ids is bound to the seed."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Counts(NoMeter):
    """A meter that keeps what it was told."""

    def __init__(self) -> None:
        self.renewals: list[str] = []
        self.step_downs: list[str] = []
        self.elections: list[float] = []
        self.changes = 0

    def renewed(self, result: str, seconds: float) -> None:
        self.renewals.append(result)

    def leader_changed(self) -> None:
        self.changes += 1

    def stepped_down(self, reason: str) -> None:
        self.step_downs.append(reason)

    def elected(self, seconds: float) -> None:
        self.elections.append(seconds)


class Meddled(FakeCoordinator):
    """A store in which something happens at the moment a transaction is sent."""

    meddle: Callable[[Txn], None] = staticmethod(lambda _: None)

    async def txn(self, txn: Txn, *, timeout: float) -> Any:
        self.meddle(txn)
        return await super().txn(txn, timeout=timeout)


def connect(sim: Simulation, process: Process) -> Meddled:
    """Connect the present life of a process to the store."""
    etcd = Meddled(process, sim.cluster, sim.network)
    sim.coordinators[process.name] = etcd
    return etcd


class Program:
    """A program that campaigns itself: a process with a session and an election, both open."""

    def __init__(
        self, sim: Simulation, name: str = "a", *, ttl: float = TTL, lease: int | None = None
    ) -> None:
        self.sim = sim
        self.name = name
        self.process = sim.process(name, rate=1.0)
        self.meter = Counts()
        self.is_open = False
        self._ttl = ttl
        self._lease = lease
        self.least_token = 0

    def open(self) -> "Program":
        """Start it, and wait until its session and its queue are there."""
        self.process.start(self._live)
        self.sim.until(lambda: self.is_open, within=10 * TTL)
        return self

    def reopen(self) -> "Program":
        """Start it again on the lease of its former life."""
        self._lease = self.session.lease
        self.is_open = False
        return self.open()

    async def _live(self, process: Process) -> None:
        self.etcd = connect(self.sim, process)
        self.end = asyncio.Event()
        session = Session(
            self.etcd,
            ttl=self._ttl,
            lease=self._lease,
            clock=process,
            meter=self.meter,
            rng=Steady(self.name),
        )
        async with session as self.session:
            election = Election(self.session, ELECTION, least_token=self.least_token)
            async with election as self.election:
                self.sim.history.attach(process, self._acting, self._known)
                await self.election.observer.synced()
                self.is_open = True
                await self.end.wait()

    def _acting(self) -> Acting | None:
        election = self.election
        return Acting(election.rev, election.deadline) if election.is_leader() else None

    def _known(self) -> list[tuple[bytes, int]]:
        return [(self.election.key.encode(), self.election.rev)]

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in it to its end."""
        return self.sim.complete(self.process, work)

    def begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Start a coroutine in it."""
        return self.process.spawn(work)

    def cancel(self, task: "asyncio.Task[Any]") -> None:
        """Cancel what was begun, and wait for its end."""
        self.process.call(task.cancel)
        self.sim.until(task.done, within=3 * TTL)
        assert task.cancelled()

    def close(self) -> None:
        """Leave the election and the session; no task may be left."""
        self.process.call(self.end.set)
        main = self.process.main
        assert main is not None
        self.sim.until(main.done, within=3 * TTL)
        assert asyncio.all_tasks(self.process.loop) == set()

    def campaign(self) -> "Program":
        """Open it, and have it lead."""
        self.open()
        self.do(self.election.campaign(self.name))
        return self

    def stand(self) -> "Program":
        """Open it, and put it into the queue."""
        self.open()
        self.do(self.election.stand(proposal(self.name)))
        return self


def proposal(name: str, priority: int = 100) -> bytes:
    """Return the value of a candidate's key."""
    return encode_proposal(Proposal(name, "", priority))


def queue(sim: Simulation) -> list[bytes]:
    """Return the candidates' keys in the store, first in the queue first."""
    kvs = sim.etcd.read(LAYOUT.candidates, LAYOUT.end).kvs
    return [kv.key for kv in sorted(kvs, key=lambda kv: kv.create_revision)]


def value(sim: Simulation, key: bytes | str) -> bytes:
    """Return what stands under a key in the store."""
    kv = sim.etcd.get(key.encode() if isinstance(key, str) else key)
    assert kv is not None
    return kv.value


def put_waiters(sim: Simulation, count: int, *, first: int = 1, ttl: float = 3600.0) -> list[bytes]:
    """Put candidates of ours into the queue that no process stands behind."""
    keys = []
    for number in range(first, first + count):
        lease = 0x1000 + number
        sim.etcd.grant(lease, ttl)
        key = LAYOUT.candidate(lease)
        sim.etcd.txn(Txn(then=(Put(key, proposal(f"w{number}"), lease),)))
        keys.append(key)
    return keys


def put_foreign(sim: Simulation, text: bytes = b"go", lease: int = 0xF0) -> bytes:
    """Put a candidate of another program into the queue."""
    sim.etcd.grant(lease, 3600.0)
    key = LAYOUT.candidate(lease)
    sim.etcd.txn(Txn(then=(Put(key, text, lease),)))
    return key


def remove(sim: Simulation, *keys: bytes) -> None:
    """Delete keys as their owners would."""
    for key in keys:
        sim.etcd.txn(Txn(then=(Delete(key),)))


def removes(key: str) -> Callable[[Txn], bool]:
    """Tell a transaction that deletes a key."""
    return lambda txn: Delete(key.encode()) in txn.then


def puts(prefix: bytes) -> Callable[[Txn], bool]:
    """Tell a transaction that writes below a prefix."""
    return lambda txn: any(isinstance(op, Put) and op.key.startswith(prefix) for op in txn.then)


async def forever(process: Process) -> None:
    """Be a process that does nothing by itself."""
    await asyncio.get_running_loop().create_future()


class Host:
    """A process for coroutines that build what they need."""

    def __init__(self, sim: Simulation, name: str = "a") -> None:
        self.sim = sim
        self.name = name
        self.process = sim.process(name, rate=1.0)
        self.process.start(forever)
        self.etcd = connect(sim, self.process)
        self.meter = Counts()

    def session(self, **options: Any) -> Session:
        """Return a session, not entered."""
        options = {"ttl": TTL, "rng": Steady(self.name), **options}
        return Session(self.etcd, clock=self.process, meter=self.meter, **options)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in it to its end; no task may be left."""
        try:
            return self.sim.complete(self.process, work)
        finally:
            assert asyncio.all_tasks(self.process.loop) == {self.process.main}


def pause(sim: Simulation) -> None:
    """Pause the election, as somebody does who waits for nobody."""
    sim.etcd.txn(Txn(then=(Put(LAYOUT.pause, b""),)))


class Listener:
    """Whoever lives by a session: asks for keys, and notes what it gets."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = keys
        self.proofs: list[tuple[TxnReply, float]] = []
        self.losses: list[str] = []

    def proof_keys(self) -> tuple[bytes, ...]:
        return self.keys

    def proven(self, keys: tuple[bytes, ...], read: TxnReply, deadline: float) -> None:
        assert keys == self.keys
        self.proofs.append((read, deadline))

    def lease_lost(self, reason: str) -> None:
        self.losses.append(reason)
