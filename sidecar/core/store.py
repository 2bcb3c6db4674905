"""The vocabulary of a revisioned store with leases: values only.

It is etcd's data model reduced to what an election needs. Every adapter speaks it, so does the
fake that the simulation runs on.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Header:
    """What every answer of the store carries.

    Attributes:
        revision: the store's revision when it answered.
        raft_term: the term of the store's own leader; only compared for equality.
        cluster_id: which cluster answered.
    """

    revision: int
    raft_term: int
    cluster_id: int


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key as the store holds it; `lease` is 0 where none is attached."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of a transaction: the key has this create revision (0: it does not exist)."""

    key: bytes
    create_revision: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A condition of a transaction: the key was last written at this revision (0: is absent).

    For a program's own records: what was read is still there. An election needs none of these.
    """

    key: bytes
    mod_revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write one key; `lease` 0 attaches none."""

    key: bytes
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key, or the range [key, end)."""

    key: bytes
    end: bytes | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """Read one key, or the range [key, end) in the order of keys, at most `limit` (0: all)."""

    key: bytes
    end: bytes | None = None
    limit: int = 0


Op = Put | Delete | Range


@dataclass(frozen=True, slots=True)
class Txn:
    """If every guard holds do `then`, else `otherwise`, as one step of the store."""

    guards: tuple[Guard | Unchanged, ...] = ()
    then: tuple[Op, ...] = ()
    otherwise: tuple[Op, ...] = ()


@dataclass(frozen=True, slots=True)
class TxnReply:
    """The answer to a `Txn`: which branch ran, and what each of its `Range`s found, in order."""

    header: Header
    succeeded: bool
    ranges: tuple[tuple[KeyValue, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class RangeReply:
    """What a range read found, all of it at `header.revision`."""

    header: Header
    kvs: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """One change of one key. For a delete only `kv.key` and `kv.mod_revision` mean anything."""

    kv: KeyValue
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of revisions; all events of each revision it holds are in it.

    `revision` is that of the last event, or 0 when there is none.
    """

    revision: int
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Proof:
    """A renewal and a linearizable read after it, on one channel.

    Attributes:
        ttl: seconds the store now grants; 0 or less: the lease is gone.
        renewal_term: `raft_term` in the renewal's answer.
        read: the read's answer, one range per key asked for; None when no key was asked for.
    """

    ttl: float
    renewal_term: int
    read: TxnReply | None
