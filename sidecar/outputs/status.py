"""The status document: the JSON that the status file, HTTP and the event stream have in common."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

from sidecar import boottime
from sidecar.core.state import ElectionState, Role
from sidecar.election.ports import Clock

VERSION = 1

# Ids come from strangers, and readers refuse a status file of more than 1 MiB: the names of a very
# long queue are cut off before that.
_CANDIDATES_LIMIT = 512 * 1024  # bytes of JSON
_PLAIN, _ESCAPED = 2, 12  # bytes that one character may take: `\"`, or a pair of `\u1234`

# The fields that move with every renewal.
DEADLINE_FIELDS = ("valid_until", "valid_until_boottime")

boot_id = functools.cache(boottime.boot_id)
time_namespace = functools.cache(boottime.time_namespace)


def describe(state: ElectionState, clock: Clock) -> dict[str, Any]:
    """Return the status document for what is true now; pass the result of `ElectionState.at`."""
    leads = state.role is Role.LEADER
    document: dict[str, Any] = {
        "version": VERSION,
        "election": state.election,
        "id": state.id,
        "role": str(state.role),
    }
    if leads:
        document |= {"token": state.token, "key": state.key}
    document |= {
        "leader": _leader(state),
        "boot_id": boot_id(),
        "time_ns": time_namespace(),
        "since": timestamp(state.since) if state.since else None,
    }
    if leads:
        left = state.deadline - clock.now()
        document |= {
            "valid_until": timestamp(clock.wall() + left),
            "valid_until_boottime": state.deadline,
        }
    document |= {
        "transitions": state.transitions,
        "candidates": _within_limit(state.candidates),
        "reason": str(state.reason),
        "link": str(state.link),
    }
    if state.is_duplicate:
        document["duplicate_id"] = True
    if state.is_paused:
        document["paused"] = True
    return document


def without_deadline(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without what a renewal changes, to tell changes from renewals."""
    return {name: value for name, value in document.items() if name not in DEADLINE_FIELDS}


def encode(document: object) -> bytes:
    """Return JSON in one line of ASCII, with a line feed."""
    return json.dumps(document).encode() + b"\n"


def timestamp(wall: float) -> str | None:
    """Return ISO 8601 in UTC with milliseconds; None for what no calendar knows."""
    try:
        seconds, milliseconds = divmod(int(wall * 1000), 1000)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        return None
    return f"{text}.{milliseconds:03d}Z"


def _leader(state: ElectionState) -> dict[str, Any] | None:
    if state.leader is None:
        return None
    leader = state.leader
    return {
        "id": leader.id,
        "address": leader.address,
        "token": leader.token,
        "key": leader.key,
    }


def _within_limit(names: tuple[str, ...]) -> list[str]:
    kept: list[str] = []
    left = _CANDIDATES_LIMIT
    for name in names:
        is_plain = name.isascii() and name.isprintable()
        left -= len(name) * (_PLAIN if is_plain else _ESCAPED)
        if left < 0:
            break
        kept.append(name)
    return kept
