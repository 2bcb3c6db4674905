"""What etcd has recorded of a release, at any of its revisions: nobody has to look in time."""

import base64
import json
from dataclasses import dataclass

from sidecar.core.codec import TermRecord, decode_proposal, decode_term
from sidecar.core.keys import Layout
from tests.e2e.support.members import etcdctl
from tests.e2e.support.release import Release


@dataclass(frozen=True, slots=True)
class Stored:
    """A key and its value; `created` and `changed` are revisions of etcd."""

    key: bytes
    value: bytes
    created: int
    changed: int


@dataclass(frozen=True, slots=True)
class Term:
    """A term in the history of an election.

    Attributes:
        began_at: the revision in which its leader has written it down.
        ended_at: that in which its key was given up, if it was: what the record says of its end is
            written in the same transaction.
    """

    record: TermRecord
    began_at: int
    ended_at: int


def stored(release: Release, prefix: str, *, at: int = 0) -> list[Stored]:
    """Return what lies under a prefix, the oldest first; at a revision, or now."""
    return _read(release, prefix, at)[1]


def revision(release: Release) -> int:
    """Return the revision that etcd is at."""
    return _read(release, release.election, 0)[0]


def candidates(release: Release, *, at: int = 0) -> dict[int, str]:
    """Return the ids of all who stand by their tokens, first in the queue first; at a revision."""
    return {
        kv.created: decode_proposal(kv.key, kv.value).id
        for kv in stored(release, Layout(release.election).candidates.decode(), at=at)
    }


def term(release: Release, token: int) -> Term:
    """Return a term by its fencing token."""
    (found,) = stored(release, Layout(release.election).term(token).decode())
    record = decode_term(found.value)
    assert record is not None, found
    return Term(record, began_at=found.created, ended_at=found.changed)


def _read(release: Release, prefix: str, at: int) -> tuple[int, list[Stored]]:
    which = ("get", "--prefix", prefix, f"--rev={at}", "--write-out=json")
    told = json.loads(etcdctl(release, *which))
    found = [
        Stored(
            base64.b64decode(kv["key"]),
            base64.b64decode(kv.get("value", "")),
            kv["create_revision"],
            kv["mod_revision"],
        )
        for kv in told.get("kvs", ())
    ]
    return told["header"]["revision"], sorted(found, key=lambda kv: (kv.created, kv.key))
