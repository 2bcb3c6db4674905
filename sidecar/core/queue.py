"""The queue of candidates, as one watcher knows it.

`QueueReplica` is fed with one read of the whole range and then with the watch's events. Whoever
has the smallest create revision is first, and *being first is stable*: a key created later can
never come before it, so only the loss of the own key can undo it. That is why a handover needs
no request beyond the delete itself.

All events of one batch are applied before anything is decided: the deletes of one guarded
multi-delete, or of one revoked lease, are several events of one revision, and between them the
queue shows a first that never was one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sidecar.core.codec import (
    Answer,
    Proposal,
    Request,
    TermRecord,
    decode_answer,
    decode_proposal,
    decode_request,
    decode_term,
)
from sidecar.core.keys import Kind, Layout
from sidecar.core.store import Batch, Event, Header, KeyValue

HISTORY_LIMIT = 100
"""Terms kept in the history; older ones are trimmed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One candidate's place in the queue. Key *and* create revision name it, never the id."""

    key: bytes
    token: int
    lease: int
    proposal: Proposal


class QueueReplica:
    """What one watcher knows of one election: candidates, commands, history.

    Not a cache to be trusted on its own: whether somebody may act is decided by
    `sidecar.core.candidacy.may_act`, with a deadline beside it.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.revision = 0
        self.cluster_id = 0
        self.is_synced = False
        self.pause: KeyValue | None = None
        self.pin: KeyValue | None = None
        self.requests: dict[str, Request] = {}
        self.answers: dict[str, Answer] = {}
        self.history: dict[int, TermRecord] = {}
        # Insertion order is queue order: a key that is created has the largest revision yet.
        self._entries: dict[bytes, Entry] = {}
        self._first: Entry | None = None

    @property
    def first(self) -> Entry | None:
        """Who stands first, or None when nobody stands."""
        return self._first

    @property
    def is_paused(self) -> bool:
        """Whether the pause key exists."""
        return self.pause is not None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All candidates, first in the queue first."""
        return tuple(self._entries.values())

    def find(self, key: bytes) -> Entry | None:
        """Return the candidate that stands under this key."""
        return self._entries.get(key)

    def __len__(self) -> int:
        return len(self._entries)

    def agrees_with(self, found: Mapping[bytes, KeyValue | None]) -> bool:
        """Whether single keys, as a linearizable read has shown them, are as they are here."""
        for key, kv in found.items():
            if key == self.layout.pause:
                if (kv is not None) != self.is_paused:
                    return False
            else:
                entry = self._entries.get(key)
                if (entry.token if entry else 0) != (kv.create_revision if kv else 0):
                    return False
        return True

    def replace(self, header: Header, kvs: Iterable[KeyValue]) -> None:
        """Forget everything and take one read of the whole range instead."""
        self.pause = self.pin = None
        self.requests, self.answers, self.history = {}, {}, {}
        candidates: list[KeyValue] = []
        for kv in kvs:
            if self.layout.kind(kv.key) is Kind.CANDIDATE:
                candidates.append(kv)
            else:
                self._put_other(kv)
        candidates.sort(key=lambda kv: (kv.create_revision, kv.key))
        self._entries = {kv.key: _entry(kv) for kv in candidates}
        self._find_first()
        self.revision = header.revision
        self.cluster_id = header.cluster_id
        self.is_synced = True

    def apply(self, batch: Batch) -> bool:
        """Take the events newer than what is known; return whether anything changed."""
        changed = False
        for event in batch.events:
            if event.kv.mod_revision > self.revision:
                self._apply(event)
                changed = True
        self.revision = max(self.revision, batch.revision)
        if changed:
            self._find_first()
        return changed

    def _apply(self, event: Event) -> None:
        kv = event.kv
        kind = self.layout.kind(kv.key)
        if kind is not Kind.CANDIDATE:
            if event.deleted:
                self._delete_other(kv.key, kind)
            else:
                self._put_other(kv)
        elif event.deleted:
            self._entries.pop(kv.key, None)
        else:
            known = self._entries.get(kv.key)
            if known is not None and known.token != kv.create_revision:
                del self._entries[kv.key]  # deleted and created anew: its place is the last
            self._entries[kv.key] = _entry(kv)

    def _find_first(self) -> None:
        self._first = next(iter(self._entries.values()), None)

    def _put_other(self, kv: KeyValue) -> None:
        match self.layout.kind(kv.key):
            case Kind.PAUSE:
                self.pause = kv
            case Kind.PIN:
                self.pin = kv
            case Kind.REQUEST:
                request = decode_request(kv.value, kv.lease)
                if request is not None:
                    self.requests[self.layout.nonce(kv.key)] = request
            case Kind.ANSWER:
                self.answers[self.layout.nonce(kv.key)] = decode_answer(kv.value)
            case Kind.HISTORY:
                record = decode_term(kv.value)
                if record is not None:
                    self.history[record.token] = record
            case _:
                pass  # falls into the range, belongs to somebody else

    def _delete_other(self, key: bytes, kind: Kind) -> None:
        match kind:
            case Kind.PAUSE:
                self.pause = None
            case Kind.PIN:
                self.pin = None
            case Kind.REQUEST:
                self.requests.pop(self.layout.nonce(key), None)
            case Kind.ANSWER:
                self.answers.pop(self.layout.nonce(key), None)
            case Kind.HISTORY:
                for token in [t for t in self.history if self.layout.term(t) == key]:
                    del self.history[token]
            case _:
                pass


def _entry(kv: KeyValue) -> Entry:
    return Entry(kv.key, kv.create_revision, kv.lease, decode_proposal(kv.key, kv.value))
