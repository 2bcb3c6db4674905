"""Holds what was acknowledged against what is, and was, in etcd."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from crawler import keys
from crawler.local_world import ELECTION
from crawler.records import Assignment, Resource

from benchmarks.crawler.load import Told
from sidecar.core.store import Event, KeyValue, Put, Txn
from sidecar.etcd import EtcdCoordinator

_WITHIN = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found wrong, as names of resources.

    Attributes:
        lost: acknowledged, and not there as it was sent.
        doubled: created more than once, or assigned to more than one Worker, in etcd's history.
        unsettled: there, and its assignment does not say the same.
        stale: written with a token that was not the leader's at that revision.
    """

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.doubled or self.unsettled or self.stale)

    def __str__(self) -> str:
        parts = {"lost": self.lost, "doubled": self.doubled, "unsettled": self.unsettled}
        parts["stale"] = self.stale
        shown = {what: f" {names[:3]}" if names else "" for what, names in parts.items()}
        return ", ".join(f"{len(names)} {what}{shown[what]}" for what, names in parts.items())


@dataclass(frozen=True, slots=True)
class Start:
    """Where a run begins: the store's revision, and who stood in the election then."""

    revision: int
    candidates: dict[bytes, int]


async def begin(etcd: EtcdCoordinator) -> Start:
    """Note where a run begins."""
    start = f"{ELECTION}/".encode()
    reply = await etcd.read(start, keys.prefix_end(start), timeout=_WITHIN)
    return Start(reply.header.revision, {kv.key: kv.create_revision for kv in reply.kvs})


async def judge(etcd: EtcdCoordinator, told: Sequence[Told], start: Start) -> Verdict:
    """Judge a run; its load must have ended."""
    root = keys.ROOT.encode()
    async with asyncio.timeout(_WITHIN):
        reply = await etcd.read(root, keys.prefix_end(root), timeout=_WITHIN)
        history = await _history(etcd, start.revision)
    records = {kv.key: kv for kv in reply.kvs}
    return Verdict(
        lost=[one.name for one in told if one.is_done and not _is_there(records, one)],
        doubled=_doubled(history),
        unsettled=[one.name for one in told if not _is_settled(records, one.name)],
        stale=_stale(history, dict(start.candidates)),
    )


async def _history(etcd: EtcdCoordinator, since: int) -> list[list[Event]]:
    """Return every later change of resources, assignments and the election, by revisions."""
    # One watch, so that all of it comes in one order. A key of our own tells where it ends.
    first, last = sorted((keys.ROOT, f"{ELECTION}/"))
    end = keys.prefix_end(last.encode())
    marker = keys.results("the-end")
    written = await etcd.txn(Txn(then=(Put(marker, b""),)), timeout=_WITHIN)
    revisions: dict[int, list[Event]] = {}
    async with etcd.watch(first.encode(), end, start_revision=since + 1) as batches:
        async for batch in batches:
            for event in batch.events:
                revisions.setdefault(event.kv.mod_revision, []).append(event)
            if batch.revision >= written.header.revision:
                break
    return list(revisions.values())


def _is_there(records: dict[bytes, KeyValue], one: Told) -> bool:
    kv = records.get(keys.resource(one.name))
    record = Resource.decode(kv.value) if kv else None
    return record is not None and record.request_id == one.request_id


def _doubled(history: Sequence[Sequence[Event]]) -> list[str]:
    """Return whatever was created twice, or was with two Workers at one moment."""
    created: Counter[str] = Counter()
    holders: dict[str, set[str]] = {}
    twice: dict[str, None] = {}
    for events in history:  # what one transaction did, happened at once
        for event in events:
            name = keys.resource_of(event.kv.key)
            if name and not event.deleted and event.kv.create_revision == event.kv.mod_revision:
                created[name] += 1
            pair = keys.assignment_of(event.kv.key)
            if pair is not None:
                held = holders.setdefault(pair[1], set())
                (held.discard if event.deleted else held.add)(pair[0])
        changed = {keys.assignment_of(event.kv.key) for event in events} - {None}
        twice |= {name: None for _, name in filter(None, changed) if len(holders[name]) > 1}
    return [*twice, *(name for name, count in created.items() if count > 1)]


def _stale(history: Sequence[Sequence[Event]], standing: dict[bytes, int]) -> list[str]:
    """Return what was written by a term that was not the leader's when it was written."""
    found: list[str] = []
    for events in history:
        token = min(standing.values(), default=0)
        writes = [(event.kv.key, _token(event.kv)) for event in events if not event.deleted]
        found += [
            f"{key.decode()} by {wrote}, led by {token}"
            for key, wrote in writes
            if wrote is not None and wrote != token
        ]
        for event in events:
            if event.kv.key.startswith(f"{ELECTION}/".encode()):
                standing.pop(event.kv.key, None)
                if not event.deleted:
                    standing[event.kv.key] = event.kv.create_revision
    return found


def _token(kv: KeyValue) -> int | None:
    """Return the token in a resource or an assignment, None for any other key."""
    if keys.resource_of(kv.key):
        resource = Resource.decode(kv.value)
        return -1 if resource is None else resource.token
    if keys.assignment_of(kv.key):
        assignment = Assignment.decode(kv.value)
        return -1 if assignment is None else assignment.token
    return None


def _is_settled(records: dict[bytes, KeyValue], name: str) -> bool:
    kv = records.get(keys.resource(name))
    if kv is None:
        return True
    record = Resource.decode(kv.value)
    return record is not None and keys.assignment(record.worker, name) in records
