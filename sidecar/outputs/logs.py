"""The log: one line per change, so that `kubectl logs` tells the whole story.

`configure` sets the format; any module logs through the standard library, with a fixed lower-case
phrase and `key=value` in the message, and the same fields in `extra` where JSON should have them.
`LeaderLog` writes down who led, since when and why, and how it stands with etcd.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from sidecar.core.codec import TermRecord
from sidecar.core.state import ElectionState, Leader, Link, Reason, Role
from sidecar.election.chronicle import LOST
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import Clock
from sidecar.outputs.status import timestamp

_log = logging.getLogger(__name__)

Format = Literal["json", "text"]

_STANDARD = {
    *vars(logging.LogRecord("", 0, "", 0, "", (), None)),
    "asctime",
    "message",
    "taskName",
}
# Ids come from strangers: a line break in one must not begin a line of its own.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL |= {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}


class TextFormatter(logging.Formatter):
    """For people: time, level, logger, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: ARG002, N802 - the library's name
        """Return the time in UTC."""
        return timestamp(record.created) or ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """Return the line, with control characters made visible."""
        return super().formatMessage(record).translate(_CONTROL)


class JsonFormatter(logging.Formatter):
    """For machines: one JSON object per line, `extra` fields beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as one line."""
        fields: dict[str, object] = {
            "ts": timestamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _STANDARD:
                fields.setdefault(name, value)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str)


_UNKNOWN = "unknown"

_CHATTY = ("asyncio", "grpc")
"""Libraries whose debug messages would bury ours."""


def configure(format_: Format, level: str | int) -> None:
    """Send the log of this process to stderr in this format, from this level on.

    Raises:
        ValueError: there is no such level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter())
    root = logging.getLogger()
    root.setLevel(level.upper() if isinstance(level, str) else level)
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)


class LeaderLog:
    """Logs every change of the leader, of the own role and of the link, each in one line."""

    def __init__(
        self,
        feed: Feed[ElectionState],
        clock: Clock,
        history: Callable[[], Sequence[TermRecord]] = tuple,
    ) -> None:
        """Take the reasons why terms ended from `history`, where it has them."""
        self._news = News(feed, clock)
        self._history = history
        self._leader: Leader | None = None
        self._token = 0  # of the own term
        self._own_end = (0, "")  # token and reason of the latest own term that ended
        self._before: ElectionState | None = None

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            self.note(self._news.look())
            await self._news.wait()

    def note(self, state: ElectionState) -> None:
        """Log what has changed since the last call."""
        self._note_leader(state)
        self._note_role(state)
        before = self._before
        if before is None or state.link is not before.link:
            self._note_link(state, before)
        if state.is_paused and not (before and before.is_paused):
            _say(logging.INFO, "election paused")
        if before and before.is_paused and not state.is_paused:
            _say(logging.INFO, "election goes on")
        if state.is_duplicate and not (before and before.is_duplicate):
            _say(logging.WARNING, "another candidate has the same id", id=state.id)
        self._before = state

    def _note_leader(self, state: ElectionState) -> None:
        # While the link is down the leader is not known, which does not mean that nobody leads.
        if state.leader is None and state.link is not Link.CONNECTED:
            return
        old, new = self._leader, state.leader
        if _term(old) == _term(new):
            return
        self._leader = new
        _say(
            logging.INFO,
            "watch leader change",
            old=old.id if old else "",
            new=new.id if new else "",
            token=new.token if new else 0,
            reason=self._reason(state, old, new),
        )

    def _reason(self, state: ElectionState, old: Leader | None, new: Leader | None) -> str:
        """Say why the leader changed: how the term before ended, as far as anybody said.

        Never why this candidate is what it is, unless the term was its own.
        """
        if new is None and state.is_paused:
            return str(Reason.PAUSED)
        if new and new.token == state.token and state.reason is Reason.RESUMED:
            return str(Reason.RESUMED)
        if old is not None:
            return self._end_of(old.token, state, new)
        assert new is not None  # noqa: S101 - else there was no change
        earlier = [record.token for record in self._history() if record.token < new.token]
        return self._end_of(max(earlier), state, new) if earlier else str(Reason.ELECTED)

    def _end_of(self, token: int, state: ElectionState, new: Leader | None) -> str:
        """Say how a term ended: by its own word, its successor's, or what we know ourselves."""
        records = {record.token: record for record in self._history()}
        ended, begun = records.get(token), records.get(new.token) if new else None
        if ended is not None and ended.reason:
            return ended.reason
        if begun is not None and begun.before:
            return begun.before
        if token == self._token and not state.token:
            return str(state.reason)
        if token == self._own_end[0]:
            return self._own_end[1]
        # Who steps down writes the reason in the same transaction that gives the key up.
        return LOST if ended is not None else _UNKNOWN

    def _note_role(self, state: ElectionState) -> None:
        if state.token == self._token:
            return
        if self._token:
            # With a new term already the state's reason is why that one began.
            reason = self._end_of(self._token, state, None) if state.token else str(state.reason)
            self._own_end = (self._token, reason)
            _say(logging.INFO, "step down", token=self._token, reason=reason)
        if state.role is Role.LEADER:
            _say(logging.INFO, "change to leader", token=state.token, reason=str(state.reason))
        self._token = state.token

    def _note_link(self, state: ElectionState, before: ElectionState | None) -> None:
        if state.link is Link.CONNECTED:
            _say(logging.INFO, "link connected")
        elif before is not None:
            _say(logging.WARNING, f"link {state.link}", reason=str(state.reason))


def _term(leader: Leader | None) -> tuple[str, int] | None:
    return (leader.key, leader.token) if leader else None


def _say(level: int, phrase: str, **fields: object) -> None:
    parts = [phrase, *(f"{name}={_quoted(value)}" for name, value in fields.items())]
    _log.log(level, "%s", " ".join(parts), extra=fields)


def _quoted(value: object) -> str:
    text = str(value)
    is_plain = text.isprintable() and not set(text) & set(' "=\\')
    return text if is_plain and text else json.dumps(text)
