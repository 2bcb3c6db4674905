"""One etcd cluster's state in true time: revisions, keys, leases, transactions, a log.

A plain state machine, asked through `FakeCluster` members. It ends leases *exactly* at the last
renewal + TTL, which no real etcd does (it looks every 500 ms): whatever acts a moment too long is
found. `sweep` gives the real habit. What the contract tests prove is what it can be trusted for.
"""

import bisect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sidecar.core.store import (
    Delete,
    Event,
    Guard,
    Header,
    KeyValue,
    Op,
    Put,
    Range,
    RangeReply,
    Txn,
    TxnReply,
    Unchanged,
)
from sidecar.errors import Compacted, LeaseExists, LeaseNotFound, Rejected, StoreFull
from tests.support.sim_process import World

MOST_OPERATIONS = 128
LEAST_TTL = 2
LONGEST_TTL = 9_000_000_000

Listener = Callable[[int, tuple[Event, ...], str], None]
"""Called at each new revision with the revision, its events, and what made it."""


@dataclass(slots=True)
class Lease:
    """A lease that lives; `waiting` are renewals that came after its end and before its sweep."""

    id: int
    ttl: float
    ends_at: float
    keys: dict[bytes, None] = field(default_factory=dict)
    waiting: list[Callable[[float], None]] = field(default_factory=list)
    is_looked_at: bool = False


@dataclass(slots=True)
class _Grant:
    """What a restore from a backup must know of a lease: between which revisions it lived."""

    ttl: float
    granted_at: int
    ended_at: float = math.inf


class FakeEtcd:
    """The state of one cluster.

    Attributes:
        revision: the present revision; an empty store has 1.
        raft_term: grows with each leader of the cluster.
        is_led: whether the cluster has a leader; without one no lease ends.
        sweep: seconds between the looks for leases to end; 0: each ends exactly when it ends.
        is_full: whether the alarm NOSPACE is raised.
        listeners: called at each new revision.
    """

    def __init__(self, world: World, *, sweep: float = 0.0) -> None:
        self.world = world
        self.sweep = sweep
        self.revision = 1
        self.raft_term = 2
        self.cluster_id = 0xE7CD
        self.compacted = 0
        self.is_full = False
        self.is_led = True
        self.listeners: list[Listener] = []
        self.leases: dict[int, Lease] = {}
        self._kvs: dict[bytes, KeyValue] = {}
        self._keys: list[bytes] = []
        self._log: list[tuple[float, tuple[Event, ...]]] = [(0.0, ()), (0.0, ())]
        self._grants: dict[int, _Grant] = {}
        self._header = Header(self.revision, self.raft_term, self.cluster_id)

    def header(self) -> Header:
        """Return the header of an answer given now."""
        header = self._header
        if header.revision != self.revision or header.raft_term != self.raft_term:
            header = self._header = Header(self.revision, self.raft_term, self.cluster_id)
        return header

    # Leases

    def grant(self, lease: int, ttl: float) -> float:
        """Create a lease; return the granted TTL, whole seconds and at least two."""
        if self.is_full:
            raise StoreFull("etcdserver: mvcc: database space exceeded")
        if lease in self.leases:
            raise LeaseExists("etcdserver: lease already exists")
        if ttl > LONGEST_TTL:
            raise Rejected("etcdserver: too large lease TTL")
        granted = float(max(math.ceil(ttl), LEAST_TTL))
        self._add_lease(lease, granted)
        self._grants[lease] = _Grant(granted, self.revision)
        return granted

    def renew(self, lease: int, answer: Callable[[float], None]) -> None:
        """Give `answer` the TTL of a lease renewed now, 0 when it is gone.

        A lease that has ended and was not swept yet is answered when it is, as by etcd.
        """
        live = self.leases.get(lease)
        if live is None:
            answer(0.0)
        elif live.ends_at <= self.world.now:
            live.waiting.append(answer)
        else:
            live.ends_at = self.world.now + live.ttl
            answer(live.ttl)

    def revoke(self, lease: int, cause: str = "revoke") -> None:
        """End a lease and delete its keys, all at one revision; an absent lease is no error."""
        live = self.leases.pop(lease, None)
        if live is None:
            return
        events: list[Event] = []
        for key in sorted(live.keys):
            self._delete(key, self.revision + 1, events)
        self._commit(events, cause)
        self._grants[lease].ended_at = self.revision
        for answer in live.waiting:
            answer(0.0)

    def _add_lease(self, lease: int, ttl: float) -> Lease:
        live = self.leases[lease] = Lease(lease, ttl, self.world.now + ttl)
        self._look_again(live)
        return live

    def _look_again(self, lease: Lease) -> None:
        if lease.is_looked_at:  # its end only moves further away: one look ahead is enough
            return
        lease.is_looked_at = True
        when = lease.ends_at
        if self.sweep:  # the first look that comes after the end
            when = (math.floor(when / self.sweep) + 1) * self.sweep
        self.world.at(when, self._expire, lease)

    def _expire(self, lease: Lease) -> None:
        lease.is_looked_at = False
        if self.leases.get(lease.id) is not lease:
            return
        if lease.ends_at > self.world.now:
            self._look_again(lease)
        elif self.is_led:
            self.revoke(lease.id, "expiry")
        # Without a leader nothing ends; the next leader grants every lease anew, see lead().

    # Keys

    def txn(self, txn: Txn, cause: str = "txn") -> TxnReply:
        """Run a transaction: all of it at one revision, or none of it."""
        _check(txn)
        if self.is_full and any(isinstance(op, Put) for op in (*txn.then, *txn.otherwise)):
            raise StoreFull("etcdserver: mvcc: database space exceeded")
        succeeded = all(self._holds(guard) for guard in txn.guards)
        ops = txn.then if succeeded else txn.otherwise
        if any(isinstance(op, Put) and op.lease and op.lease not in self.leases for op in ops):
            raise LeaseNotFound("etcdserver: requested lease not found")
        events: list[Event] = []
        ranges = []
        for op in ops:
            match op:
                case Put():
                    self._put(op, self.revision + 1, events)
                case Delete():
                    for key in self._names(op.key, op.end):
                        self._delete(key, self.revision + 1, events)
                case Range():
                    ranges.append(self._range(op))
        self._commit(events, cause)
        return TxnReply(self.header(), succeeded, tuple(ranges))

    def read(self, key: bytes, end: bytes, *, keys_only: bool = False) -> RangeReply:
        """Read the range [key, end)."""
        kvs = (self._kvs[name] for name in self._names(key, end))
        if keys_only:
            kvs = (
                KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.lease) for kv in kvs
            )
        return RangeReply(self.header(), tuple(kvs))

    def get(self, key: bytes) -> KeyValue | None:
        """Return one key as it is now."""
        return self._kvs.get(key)

    def _holds(self, guard: Guard | Unchanged) -> bool:
        kv = self._kvs.get(guard.key)
        if isinstance(guard, Unchanged):
            return (0 if kv is None else kv.mod_revision) == guard.mod_revision
        return (0 if kv is None else kv.create_revision) == guard.create_revision

    def _names(self, key: bytes, end: bytes | None) -> list[bytes]:
        if end is None:
            return [key] if key in self._kvs else []
        last = len(self._keys) if end == b"\0" else bisect.bisect_left(self._keys, end)
        return self._keys[bisect.bisect_left(self._keys, key) : last]

    def _range(self, op: Range) -> tuple[KeyValue, ...]:
        names = self._names(op.key, op.end)
        return tuple(self._kvs[name] for name in (names[: op.limit] if op.limit else names))

    def _put(self, put: Put, revision: int, events: list[Event]) -> None:
        old = self._kvs.get(put.key)
        if old is None:
            bisect.insort(self._keys, put.key)
        created = revision if old is None else old.create_revision
        kv = KeyValue(put.key, put.value, created, revision, put.lease)
        self._attach(kv, old)
        self._kvs[put.key] = kv
        events.append(Event(kv))

    def _attach(self, kv: KeyValue, old: KeyValue | None) -> None:
        if old is not None and old.lease in self.leases:
            self.leases[old.lease].keys.pop(old.key, None)
        if kv.lease:
            self.leases[kv.lease].keys[kv.key] = None

    def _delete(self, key: bytes, revision: int, events: list[Event]) -> None:
        kv = self._kvs.pop(key)
        del self._keys[bisect.bisect_left(self._keys, key)]
        if kv.lease in self.leases:
            self.leases[kv.lease].keys.pop(key, None)
        events.append(Event(KeyValue(key, b"", 0, revision), deleted=True))

    def _commit(self, events: Iterable[Event], cause: str) -> None:
        done = tuple(events)
        if not done:
            return
        self.revision += 1
        self._log.append((self.world.now, done))
        self.world.note("etcd", cause, self.revision, *map(_told, done))
        for listener in self.listeners:
            listener(self.revision, done, cause)

    # What watches read

    def since(self, revision: int) -> list[tuple[int, float, tuple[Event, ...]]]:
        """Return (revision, when, events) from a revision on.

        Raises:
            Compacted: the revision is no longer kept.
        """
        if revision < self.compacted:
            raise Compacted(self.compacted)
        kept = enumerate(self._log[revision:], start=revision)
        return [(number, when, events) for number, (when, events) in kept]

    # What befalls a cluster

    def compact(self, revision: int = 0) -> None:
        """Forget what is older than a revision (0: the present one)."""
        self.compacted = revision or self.revision
        self.world.note("etcd", "compacted at", self.compacted)

    def lead(self, extension: float = 0.0) -> None:
        """Give the cluster a new leader, which grants every lease anew (+ extension, seconds)."""
        self.raft_term += 1
        self.is_led = True
        self.world.note("etcd", "a new leader, term", self.raft_term)
        for lease in self.leases.values():
            lease.ends_at = self.world.now + lease.ttl + extension
            self._look_again(lease)
            waiting, lease.waiting = lease.waiting, []
            for answer in waiting:
                answer(lease.ttl)

    def restore(self, revision: int, *, is_new_cluster: bool = False) -> None:
        """Go back to what was at a revision, as from a backup; later leases live again."""
        self._kvs = {}
        for _, events in self._log[: revision + 1]:
            for event in events:
                self._kvs.pop(event.kv.key, None)
                if not event.deleted:
                    self._kvs[event.kv.key] = event.kv
        self._keys = sorted(self._kvs)
        del self._log[revision + 1 :]
        self.revision = revision
        self.compacted = min(self.compacted, revision)
        self.raft_term = 2
        if is_new_cluster:
            self.cluster_id += 1
        self._header = Header(self.revision, self.raft_term, self.cluster_id)
        self._restore_leases(revision)
        self.world.note("etcd", "restored to revision", revision)
        for listener in self.listeners:
            listener(revision, (), "restore")

    def _restore_leases(self, revision: int) -> None:
        self.leases = {}
        for lease, known in self._grants.items():
            if known.granted_at <= revision < known.ended_at:
                known.ended_at = math.inf
                self._add_lease(lease, known.ttl)
        for kv in self._kvs.values():
            if kv.lease:
                self.leases[kv.lease].keys[kv.key] = None


def _check(txn: Txn) -> None:
    """Refuse what etcd refuses before it looks at a key."""
    if max(len(txn.guards), len(txn.then), len(txn.otherwise)) > MOST_OPERATIONS:
        raise Rejected("etcdserver: too many operations in txn request")
    if not all(part.key for part in (*txn.guards, *txn.then, *txn.otherwise)):
        raise Rejected("etcdserver: key is not provided")
    for branch in (txn.then, txn.otherwise):
        puts = [op.key for op in branch if isinstance(op, Put)]
        deletes = [op for op in branch if isinstance(op, Delete)]
        if len(set(puts)) < len(puts) or any(_covers(op, key) for op in deletes for key in puts):
            raise Rejected("etcdserver: duplicate key given in txn request")


def _covers(op: Op, key: bytes) -> bool:
    end = None if isinstance(op, Put) else op.end
    return op.key == key if end is None else op.key <= key and (key < end or end == b"\0")


def _told(event: Event) -> str:
    return f"{'-' if event.deleted else '+'}{event.kv.key.decode(errors='replace')}"
