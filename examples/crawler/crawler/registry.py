"""The service registry in etcd, in go-micro's layout: who runs, where, and for how long yet.

Each running program has a key `<prefix>/<service>/<node id>` of its own, bound to a lease of its
own. `Registry` keeps it there; `living` follows the nodes of a service. The key also tells a
program whether it may still believe that others count on it: a Worker stops when `deadline` has
passed, before the Master can have seen its key go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from crawler import keys
from crawler.mirror import Mirror
from crawler.records import Node
from sidecar.core.lease import NEVER
from sidecar.core.store import Guard, KeyValue, Put, Range, Txn, TxnReply
from sidecar.election import Clock, Coordinator, Session, SystemClock
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.feed import Feed
from sidecar.errors import CoordinatorError, LeaseNotFound, Rejected, SessionLost, SidecarError

log = logging.getLogger(__name__)

_LIVES = 3
"""TTLs for which the key of an earlier life may still stand, seen through one leader of etcd: etcd
looks for leases to end now and then, and a slow one does so late."""

_AFTER_TTL = 1.0
_TTL = "ttl"
"""In the metadata: seconds of the lease that the key is bound to."""


class NodeIdInUse(SidecarError):
    """Another living program is registered under this id."""


@dataclass(frozen=True, slots=True)
class Place:
    """The key under which a program is registered, named by its create revision."""

    key: bytes
    create_revision: int

    @property
    def guard(self) -> Guard:
        """A condition that holds as long as this very registration stands."""
        return Guard(self.key, self.create_revision)


class Registry:
    """Keeps one node registered, across outages of etcd; an async context manager.

    Entering it does not wait for etcd; `registered` does.

    Args:
        prefix: the registry's, such as `keys.REGISTRY`.
        ttl: seconds; of the lease that the key is bound to.
        endpoints: names of the calls that the node answers.

    Raises:
        NodeIdInUse: (in the group of exceptions that ends the block) a living other one has it.
    """

    def __init__(  # noqa: PLR0917 - what every node has, in the order of its key
        self,
        coordinator: Coordinator,
        prefix: str,
        service: str,
        node_id: str,
        address: str,
        metadata: Mapping[str, str] | None = None,
        *,
        ttl: float = 5.0,
        endpoints: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self.node = Node(
            service,
            node_id,
            address,
            {**(metadata or {}), _TTL: f"{ttl:g}"},
            tuple(endpoints),
        )
        self.key = keys.node(prefix, service, node_id)
        self._coordinator = coordinator
        self._value = self.node.encode()
        self._ttl = ttl
        self._clock = clock or SystemClock()
        self._rng = random.SystemRandom()
        self._session: Session | None = None
        self._place: Place | None = None
        self._deadline = Feed(NEVER)
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start(self._keep(), name=f"registry-{self.node.id}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, exc, traceback)

    @property
    def is_registered(self) -> bool:
        """Whether the key is in etcd for certain; asks the clock at each use."""
        return self._clock.now() < self.deadline

    @property
    def deadline(self) -> float:
        """Until when the last proof of the key holds (CLOCK_BOOTTIME seconds), or `NEVER`."""
        return self._deadline.value

    @property
    def place(self) -> Place | None:
        """The key as it stands, None while there is none that we know of."""
        return self._place

    async def registered(self) -> Place:
        """Wait until the key is in etcd for certain, and return it."""
        while not (self.is_registered and self._place):
            await self._deadline.changed(self._deadline.version)
        return self._place

    def holds(self, place: Place) -> bool:
        """Whether this registration stands for certain, and no later one in its stead."""
        return self._place == place and self.is_registered

    async def lapsed(self, place: Place) -> None:
        """Wait until a registration does not stand for certain: its last proof is too old."""
        while self.holds(place):
            seen = self._deadline.version
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.deadline - self._clock.now(), 0)):
                    await self._deadline.changed(seen)

    async def stands(self, place: Place) -> None:
        """Wait while a registration does not stand for certain; forever, where it is replaced."""
        while not self.holds(place):
            await self._deadline.changed(self._deadline.version)

    def proof_keys(self) -> tuple[bytes, ...]:
        """Return what each proof of the session must read; see `sidecar.election.session`."""
        return (self.key,) if self._place else ()

    def proven(self, asked: tuple[bytes, ...], read: TxnReply, deadline: float) -> None:
        """Take a proof of the session: the key still stands, or somebody has deleted it."""
        if not asked or self._place is None or self._session is None:
            return
        found = [kv for kvs in read.ranges for kv in kvs]
        if [kv.create_revision for kv in found] == [self._place.create_revision]:
            self._deadline.publish(deadline)
        else:
            log.warning("registration is gone, registering again key=%s", self.key.decode())
            self._session.lose("key_gone")

    def lease_lost(self, reason: str) -> None:
        """Learn from the session that it has ended."""
        if self._place is not None:
            log.info("registration ended key=%s reason=%s", self.key.decode(), reason)
        self._place = None
        self._deadline.publish(NEVER)

    async def _keep(self) -> None:
        backoff = Backoff(self._rng)
        while True:
            try:
                async with Session(
                    self._coordinator, ttl=self._ttl, clock=self._clock
                ) as self._session:
                    self._session.attach(self)
                    await self._stand(self._session)
                    backoff.reset()
                    await self._session.lost
            except SessionLost:
                pass  # begins anew, with a new lease
            except Rejected as exc:
                log.warning("etcd refuses the registration error=%s", exc)
            await backoff.wait()

    async def _stand(self, session: Session) -> None:
        """Put the key, once nobody else has it."""
        backoff = Backoff(self._rng)
        patience = _Patience(self._clock, self.node)
        while True:
            session.raise_if_lost()
            try:
                create_revision = await self._try_to_stand(session, patience)
            except LeaseNotFound as exc:
                session.lose("expired")
                raise SessionLost("expired") from exc
            except CoordinatorError as exc:
                patience.begin_again()
                session.contact.failed("registration", exc)
            else:
                if create_revision:
                    session.raise_if_lost()
                    self._place = Place(self.key, create_revision)
                    session.prove_soon()
                    log.info("registered key=%s lease=%x", self.key.decode(), session.lease)
                    return
            await backoff.wait()

    async def _try_to_stand(self, session: Session, patience: _Patience) -> int:
        """Return the own key's create revision, 0 while another one stands."""
        reply = await self._coordinator.txn(
            Txn(
                guards=(Guard(self.key, 0),),
                then=(Put(self.key, self._value, session.lease),),
                otherwise=(Range(self.key),),
            ),
            timeout=session.call_limit,
        )
        if reply.succeeded:
            return reply.header.revision
        (found,) = reply.ranges[0]
        if found.lease == session.lease:
            return found.create_revision  # an earlier try took effect, unheard
        patience.check(found, reply.header.raft_term, session.ttl)
        return 0


class _Patience:
    """Tells a living owner of the id from one that died, whose key ends with its lease.

    A new leader of etcd grants every lease anew, and while etcd has none no lease ends. So only
    the time counts in which one leader of etcd has answered every call.
    """

    def __init__(self, clock: Clock, node: Node) -> None:
        self._clock = clock
        self._node = node
        self._seen = (0, 0)
        self._until = NEVER

    def begin_again(self) -> None:
        """Count from the next look: etcd has not answered."""
        self._seen = (0, 0)

    def check(self, found: KeyValue, raft_term: int, ttl: float) -> None:
        """Raise `NodeIdInUse` when the same key has stood for longer than a dead one's could."""
        seen = (found.create_revision, raft_term)
        if seen != self._seen:
            self._seen = seen
            longest = max(_LIVES * ttl, _ttl(found))
            self._until = self._clock.now() + longest + _AFTER_TTL
        elif self._clock.now() > self._until:
            raise NodeIdInUse(
                f"the id {self._node.id!r} is in use by another {self._node.service}, which runs "
                f"at {_address(found)}; give each its own"
            )


@asynccontextmanager
async def living(
    coordinator: Coordinator, prefix: str, service: str
) -> AsyncIterator[Feed[Mapping[str, Node]]]:
    """Follow the living nodes of a service; yields a feed of them, by id.

    Entering waits until they were read once. While etcd is away the feed keeps what it had. See
    `Mirror` for who has to call the same coordinator.
    """
    start = keys.service(prefix, service)
    async with Mirror(coordinator, start, keys.prefix_end(start)) as mirror:
        await mirror.synced()
        feed: Feed[Mapping[str, Node]] = Feed(_nodes(mirror.kvs))
        mirror.version.listen(lambda: feed.publish(_nodes(mirror.kvs)))
        yield feed


def _nodes(kvs: Mapping[bytes, KeyValue]) -> Mapping[str, Node]:
    found = (Node.decode(kv.value) for kv in kvs.values())
    return {node.id: node for node in found if node is not None}


def _ttl(found: KeyValue) -> float:
    """Return the TTL that a key tells of its lease, 0 where it tells none."""
    node = Node.decode(found.value)
    try:
        ttl = float(node.metadata.get(_TTL, "")) if node is not None else 0.0
    except ValueError:
        return 0.0
    return ttl if math.isfinite(ttl) else 0.0


def _address(found: KeyValue) -> str:
    node = Node.decode(found.value)
    return node.address if node is not None else "an unknown address"
