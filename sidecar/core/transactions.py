"""The transactions of an election: every write that we ever send, built as plain values.

Each is guarded so that sending it twice, or having it land late, does no harm:

* a campaign creates the key only where there is none, and else reads what is there;
* whatever removes or changes a key names the create revision it means;
* commands require the term they are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sidecar.core.codec import (
    Answer,
    Request,
    TermRecord,
    encode_answer,
    encode_request,
    encode_term,
)
from sidecar.core.keys import Layout
from sidecar.core.queue import HISTORY_LIMIT, Entry
from sidecar.core.store import Delete, Guard, Op, Put, Range, Txn


def campaign(layout: Layout, key: bytes, value: bytes, lease: int) -> Txn:
    """Join the queue; where the own key or the pause key exists, read both instead."""
    return Txn(
        guards=(Guard(key, 0), Guard(layout.pause, 0)),
        then=(Put(key, value, lease),),
        otherwise=(Range(key), Range(layout.pause)),
    )


def proclaim(key: bytes, token: int, value: bytes, lease: int) -> Txn:
    """Replace the proposal within the term."""
    return Txn(guards=(Guard(key, token),), then=(Put(key, value, lease),))


def give_up(key: bytes, token: int, epilogue: Sequence[Put] = ()) -> Txn:
    """Delete the own key, if it is still the one meant; `epilogue` is written with it."""
    return Txn(guards=(Guard(key, token),), then=(Delete(key), *epilogue))


def move(own: Entry, waiters: Sequence[Entry]) -> Txn:
    """Take waiters out of the queue, if all stand and the mover's own key does."""
    return Txn(
        guards=(Guard(own.key, own.token), *(Guard(w.key, w.token) for w in waiters)),
        then=tuple(Delete(w.key) for w in waiters),
    )


def hand_over(
    own: Entry, waiters: Sequence[Entry], target: Entry, epilogue: Sequence[Put] = ()
) -> Txn:
    """Delete the own key and the waiters before the target, if the target still stands."""
    removal = move(own, waiters)
    guards = (*removal.guards, Guard(target.key, target.token))
    then: tuple[Op, ...] = (Delete(own.key), *removal.then, *epilogue)
    return Txn(guards=guards, then=then)


def pin(layout: Layout, target: Entry) -> Put:
    """Keep a commanded leader from being replaced by priority, for as long as it stands."""
    return Put(layout.pin, b"", target.lease)


def ended_term(layout: Layout, record: TermRecord, *, until: float, reason: str) -> Put:
    """Say in the history when and how a term ended."""
    ended = replace(record, until=until, reason=reason)
    return Put(layout.term(record.token), encode_term(ended))


def begun_term(layout: Layout, key: bytes, record: TermRecord, known: Sequence[int]) -> Txn:
    """Put a new term into the history and trim what lies below the last hundred."""
    then: list[Op] = [Put(layout.term(record.token), encode_term(record))]
    kept = sorted({*known, record.token})[-HISTORY_LIMIT:]
    then.append(Delete(layout.term(0), layout.term(kept[0])))
    return Txn(guards=(Guard(key, record.token),), then=tuple(then))


def ask(layout: Layout, nonce: str, leader_key: bytes, request: Request) -> Txn:
    """Put a command to the leader, if the term it is for still runs."""
    return Txn(
        guards=(Guard(leader_key, request.token),),
        then=(Put(layout.request(nonce), encode_request(request), request.lease),),
    )


def answer(layout: Layout, nonce: str, asker_lease: int, reply: Answer) -> Txn:
    """Answer a request on its asker's lease, so that it goes when the asker does."""
    return Txn(then=(Put(layout.answer(nonce), encode_answer(reply), asker_lease),))


def proof_keys(layout: Layout, own_key: bytes | None, first_key: bytes | None) -> tuple[bytes, ...]:
    """Return what a proof reads: pause, the own key, and whoever is believed to be first.

    The last lets a waiter notice that its watch has gone silent: a first that is gone from the
    store but not from the replica.
    """
    keys = [layout.pause]
    if own_key is not None:
        keys.append(own_key)
    if first_key is not None and first_key != own_key:
        keys.append(first_key)
    return tuple(keys)
