"""What stands in the values: versioned JSON of our own, and what to make of anything else.

Any program may stand in an election, so a value is data from a stranger: binary, huge, not
UTF-8, JSON of another shape. Decoding never raises; what is not ours is kept opaque.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import Any, TypeGuard

VERSION = 1
VALUE_LIMIT = 16 * 1024
"""Bytes of a candidate's value that are looked at; of a larger one only the place is kept."""

_FOREIGN_NAME_LIMIT = 200
_LONGEST_INT = 20
_END_OF_TIME = 253402300800.0  # the year 10000, seconds since 1970
DEFAULT_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a candidate says of itself.

    Attributes:
        id: the candidate's id; for a foreign value its text, or the key's last segment.
        address: where others reach the program, or "".
        priority: higher ones are preferred as leader; None for a foreign candidate.
    """

    id: str
    address: str = ""
    priority: int | None = DEFAULT_PRIORITY

    @property
    def is_foreign(self) -> bool:
        """Whether another program than ours put it (we must never delete such a key)."""
        return self.priority is None


def encode_proposal(proposal: Proposal) -> bytes:
    """Return the value of a candidate's key."""
    return _encode({"id": proposal.id, "address": proposal.address, "priority": proposal.priority})


def decode_proposal(key: bytes, value: bytes) -> Proposal:
    """Return what a candidate's value says; anything that is not ours becomes a foreign one."""
    if len(value) <= VALUE_LIMIT:
        fields = _decode(value)
        match fields:
            case {"id": str(id_), "address": str(address), "priority": int(priority)}:
                return Proposal(id_, address, priority)
            case _:
                pass
        text = _printable(value)
        if text:
            return Proposal(text, "", None)
    return Proposal(key.rsplit(b"/", 1)[-1].decode(errors="replace"), "", None)


class Action(enum.StrEnum):
    """What a request asks the leader for."""

    RESIGN = "resign"
    HANDOVER = "handover"


@dataclass(frozen=True, slots=True)
class Request:
    """A command to the leader of one term.

    Attributes:
        token: the term it is for; a leader obeys only its own.
        to: the candidate that is to lead next: an id, or a key; "" for whoever is next.
        lease: the asker's lease, on which the answer is put.
    """

    action: Action
    token: int
    to: str = ""
    lease: int = 0


def encode_request(request: Request) -> bytes:
    """Return the value of a request's key."""
    return _encode({"action": request.action.value, "token": request.token, "to": request.to})


def decode_request(value: bytes, lease: int) -> Request | None:
    """Return the command in a request's value, or None when there is none that we know."""
    match _decode(value):
        case {"action": "resign" | "handover" as action, "token": int(token), "to": str(to)} if (
            _is_utf8(to)
        ):
            return Request(Action(action), token, to, lease)
        case _:
            return None


@dataclass(frozen=True, slots=True)
class Answer:
    """The leader's answer to a request: accepted, or refused and why."""

    accepted: bool
    reason: str = ""


def encode_answer(answer: Answer) -> bytes:
    """Return the value of an answer's key."""
    return _encode({"accepted": answer.accepted, "reason": answer.reason})


def decode_answer(value: bytes) -> Answer:
    """Return the leader's answer; one that cannot be read is a refusal that says so."""
    match _decode(value):
        case {"accepted": bool(accepted), "reason": str(reason)}:
            return Answer(accepted, reason)
        case _:
            return Answer(accepted=False, reason="the leader's answer cannot be read")


@dataclass(frozen=True, slots=True)
class TermRecord:
    """One term in the history.

    Attributes:
        since: wall clock when it began, seconds since 1970, for people to read.
        until: wall clock when it ended, or None while it runs or when it ended without a word.
        reason: how it ended, or "" like `until`.
        before: how the term before it ended, as far as its successor could see.
    """

    token: int
    id: str
    since: float
    until: float | None = None
    reason: str = ""
    before: str = ""


def encode_term(record: TermRecord) -> bytes:
    """Return the value of a history key."""
    fields = {
        "token": record.token,
        "id": record.id,
        "from": record.since,
        "until": record.until,
        "reason": record.reason,
        "before": record.before,
    }
    return _encode({name: value for name, value in fields.items() if value not in (None, "")})


def decode_term(value: bytes) -> TermRecord | None:
    """Return the term in a history value, or None when it is not one of ours."""
    fields = _decode(value) or {}
    match fields:
        case {"token": int(token), "id": str(id_), "from": since} if token > 0 and _is_time(since):
            until = fields.get("until")
            return TermRecord(
                token,
                id_,
                float(since),
                float(until) if _is_time(until) else None,
                str(fields.get("reason", "")),
                str(fields.get("before", "")),
            )
        case _:
            return None


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps({"v": VERSION, **fields}, separators=(",", ":")).encode()


def _decode(value: bytes) -> dict[str, Any] | None:
    if len(value) > VALUE_LIMIT:
        return None
    try:
        # No whole number too large to become a float: it would not be ours.
        fields = json.loads(value, parse_int=_small_int)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and fields.get("v") == VERSION else None


def _is_time(seconds: object) -> TypeGuard[float]:
    """Whether people could be shown it: what everybody may write can be any number, or none."""
    return isinstance(seconds, int | float) and 0 <= seconds < _END_OF_TIME


def _small_int(text: str) -> int:
    if len(text) > _LONGEST_INT:
        raise ValueError("the number is too large")
    return int(text)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return ""
    return text if text.isprintable() and len(text) <= _FOREIGN_NAME_LIMIT else ""
