"""What etcd remembers: every write to the crawler's keys, judged against the terms of its time."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from crawler import keys
from crawler.records import Assignment, Deletion, Resource

from sidecar.core.store import Event
from sidecar.etcd import EtcdCoordinator


@dataclass
class History:
    """All changes, in the order of revisions.

    Attributes:
        terms: create revision of each candidate's key, and the revision that deleted it.
        writes: (revision, token, resource) of each write of a Master.
        added: how often each resource came into being.
    """

    terms: dict[int, int | None] = field(default_factory=dict)
    writes: list[tuple[int, int, str]] = field(default_factory=list)
    added: Counter[str] = field(default_factory=Counter)

    def leader_at(self, revision: int) -> int | None:
        """Return the token that was valid just before a revision."""
        standing = [
            token
            for token, end in self.terms.items()
            if token < revision and (end is None or end >= revision)
        ]
        return min(standing, default=None)

    def late_writes(self) -> list[tuple[int, int, str]]:
        """Return the writes of Masters whose term was over, or had not begun."""
        return [write for write in self.writes if write[1] != self.leader_at(write[0])]


async def history(endpoints: Sequence[str], election: str) -> History:
    """Read everything that has ever happened, by a watch from the first revision on."""
    found = History()
    standing: dict[bytes, int] = {}
    async with EtcdCoordinator(",".join(endpoints)) as etcd:
        async for event in _events(etcd, (election + "/").encode()):
            key, revision = event.kv.key, event.kv.mod_revision
            if not event.deleted and event.kv.create_revision == revision:
                standing[key] = revision
                found.terms[revision] = None
            elif event.deleted:
                found.terms[standing.pop(key)] = revision
        async for event in _events(etcd, keys.ROOT.encode()):
            _note(found, event)
    return found


def _note(found: History, event: Event) -> None:
    kv = event.kv
    if event.deleted:
        return
    if keys.resource_of(kv.key) is not None:
        record: Resource | Assignment | Deletion | None = Resource.decode(kv.value)
        found.added[keys.resource_of(kv.key) or ""] += kv.create_revision == kv.mod_revision
    elif keys.assignment_of(kv.key) is not None:
        record = Assignment.decode(kv.value)
    elif kv.key.startswith(keys.DELETED.encode()):
        record = Deletion.decode(kv.value)
    else:
        return  # a Worker's
    assert record is not None, kv
    name = record.name if isinstance(record, Deletion) else record.spec.name
    found.writes.append((kv.mod_revision, record.token, name))


async def _events(etcd: EtcdCoordinator, prefix: bytes) -> AsyncIterator[Event]:
    """Yield every event under a prefix up to now."""
    end = keys.prefix_end(prefix)
    last = max(
        (kv.mod_revision for kv in (await etcd.read(prefix, end, timeout=10)).kvs), default=0
    )
    if not last:
        return
    async with etcd.watch(prefix, end, start_revision=1) as batches:
        async for batch in batches:
            for event in batch.events:
                yield event
            if batch.revision >= last:
                return
