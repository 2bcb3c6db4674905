"""Where everything of one election lies in the store.

=============================  ==============================================================
``<election>/<lease id hex>``  a candidate; the value is its proposal
``<election>.control/…``       requests, answers, the pause key and the pin
``<election>.history/<016x>``  one finished or running term, by its token
=============================  ==============================================================

The candidates' keys are those of etcd's Go package `concurrency`, so `etcdctl elect` and Go
programs can stand in the same election. In ASCII ``.`` < ``/`` < ``0``: one watch on
[``<election>.control/``, ``<election>0``) sees all three in one order of revisions.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

_HIGHEST_CONTROL_CHARACTER = 0x1F
_DELETE_CHARACTER = 0x7F


class Kind(enum.Enum):
    """What a key in the watched range is."""

    CANDIDATE = "candidate"
    PAUSE = "pause"
    PIN = "pin"
    REQUEST = "request"
    ANSWER = "answer"
    HISTORY = "history"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Layout:
    """The keys of one election, by its name.

    Raises:
        ValueError: the name cannot be an election's; the message says what would be right.
    """

    name: str

    def __post_init__(self) -> None:
        problem = name_problem(self.name)
        if problem is not None:
            raise ValueError(problem)

    @property
    def candidates(self) -> bytes:
        """The prefix of all candidates' keys."""
        return f"{self.name}/".encode()

    @property
    def start(self) -> bytes:
        """The first key of the watched range."""
        return f"{self.name}.control/".encode()

    @property
    def end(self) -> bytes:
        """The first key after the watched range."""
        return f"{self.name}0".encode()

    @property
    def pause(self) -> bytes:
        """While this key exists nobody acts and nobody joins."""
        return f"{self.name}.control/pause".encode()

    @property
    def pin(self) -> bytes:
        """While this key exists the leader is not replaced by priority."""
        return f"{self.name}.control/pin".encode()

    def candidate(self, lease: int) -> bytes:
        """Return the key of the candidate that stands on this lease."""
        return f"{self.name}/{lease:x}".encode()

    def request(self, nonce: str) -> bytes:
        """Return the key of a command to the leader."""
        return f"{self.name}.control/request/{nonce}".encode()

    def answer(self, nonce: str) -> bytes:
        """Return the key of the leader's answer to the request of the same nonce."""
        return f"{self.name}.control/answer/{nonce}".encode()

    def term(self, token: int) -> bytes:
        """Return the key of a term's record."""
        return f"{self.name}.history/{token:016x}".encode()

    @property
    def grant_command(self) -> str:
        """The command that gives an etcd role what an election needs, no more."""
        first, end = self.start.decode(), self.end.decode()
        return f"etcdctl role grant-permission ROLE readwrite '{first}' '{end}'"

    def kind(self, key: bytes) -> Kind:
        """Tell what a key is; keys that merely fall into the range are `Kind.FOREIGN`."""
        if key.startswith(self.candidates) and len(key) > len(self.candidates):
            return Kind.CANDIDATE
        if key == self.pause:
            return Kind.PAUSE
        if key == self.pin:
            return Kind.PIN
        for prefix, kind in (
            (self.request(""), Kind.REQUEST),
            (self.answer(""), Kind.ANSWER),
            (f"{self.name}.history/".encode(), Kind.HISTORY),
        ):
            if key.startswith(prefix) and len(key) > len(prefix):
                return kind
        return Kind.FOREIGN

    def nonce(self, key: bytes) -> str:
        """Return the nonce of a request's or an answer's key."""
        return key.rsplit(b"/", 1)[1].decode(errors="replace")


def name_problem(name: str) -> str | None:
    """Say what is wrong with an election's name, or None when it is good."""
    if not name:
        return "the election's name is empty; give one such as /resources/election"
    return next((f"the election's name {name!r} {p}" for p in _name_problems(name)), None)


def _name_problems(name: str) -> Iterator[str]:
    segments = name.split("/")
    if not _is_utf8(name):
        yield "is not valid UTF-8"
    if any(ord(c) <= _HIGHEST_CONTROL_CHARACTER or ord(c) == _DELETE_CHARACTER for c in name):
        yield "holds a control character"
    if name.endswith("/"):
        yield "ends in '/'; leave the slash out"
    if "" in segments[1:]:
        yield "has '//'; use single slashes"
    if {".", ".."} & set(segments):
        yield "has a segment '.' or '..'"
    if segments[-1].endswith((".control", ".history")):
        yield "ends in .control or .history, which are ours"


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def parents(name: str) -> tuple[str, ...]:
    """Return the names of all elections that would contain the keys of this one."""
    segments = name.split("/")
    names = ("/".join(segments[:n]) for n in range(1, len(segments)))
    return tuple(parent for parent in names if parent and name_problem(parent) is None)
