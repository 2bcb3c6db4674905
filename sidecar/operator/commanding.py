"""What the operator asks of an election: hand over, pause, go on. One request at a time.

Requests go through etcd to the leader, as those of the command line; no key is ever deleted here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.election.commands import Commands
from sidecar.election.ports import Coordinator
from sidecar.errors import CoordinatorError, ElectionError, Underway
from sidecar.operator.moves import Move, NoMove
from sidecar.operator.status import stamp

log = logging.getLogger(__name__)

DONE, REFUSED, FAILED = "Done", "Refused", "Failed"

LONGEST_DRAIN = 300.0
"""Seconds for which a leader that has accepted a handover is waited for, while it drains."""

_WITHIN = 15.0  # seconds for one command; a drain that the leader has accepted comes besides
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended: `DONE`, `REFUSED` or `FAILED`, and why."""

    result: str
    message: str = ""


def account(wanted: Move | NoMove, outcome: Outcome, at: float) -> Mapping[str, Any]:
    """Return `status.move` for a command that ended at `at`, seconds since 1970; None: no field."""
    return {
        "reason": wanted.reason,
        "token": wanted.token or None,
        "to": wanted.target.proposal.id if isinstance(wanted, Move) else None,
        "result": outcome.result,
        "message": outcome.message or None,
        "at": stamp(at),
    }


async def carry_out(
    coordinator: Coordinator,
    election: str,
    move: Move,
    *,
    within: float = _WITHIN,
    drain: float = 0.0,
) -> Outcome:
    """Ask the leader of the term to hand over to the target, and wait until it has.

    A leader that has accepted moves, so where its drain is not waited for, that is done; where it
    is, for `drain` seconds, and was not over then, something is wrong.
    """
    to = move.target.key.decode(errors="replace")
    commands = Commands(coordinator, election, within=within, drain=drain)
    try:
        leader = await commands.handover(to, token=move.token)
    except ElectionError as exc:
        return Outcome(REFUSED, str(exc))
    except Underway as exc:
        return Outcome(FAILED if drain else DONE, str(exc))
    except CoordinatorError as exc:
        return Outcome(FAILED, str(exc))
    if leader is None or leader.id != move.target.proposal.id:
        return Outcome(DONE, f"{leader.id if leader else 'nobody'} leads now")
    return Outcome(DONE)


async def pause(coordinator: Coordinator, election: str) -> Outcome:
    """Let nobody act."""
    try:
        await Commands(coordinator, election, within=_WITHIN).pause()
    except ElectionError as exc:
        return Outcome(REFUSED, str(exc))
    except CoordinatorError as exc:
        return Outcome(FAILED, str(exc))
    return Outcome(DONE)


async def resume(coordinator: Coordinator, election: str) -> Outcome:
    """End a pause."""
    try:
        await Commands(coordinator, election, within=_WITHIN).resume()
    except CoordinatorError as exc:
        return Outcome(FAILED, str(exc))
    return Outcome(DONE)


class Restraint:
    """When a command that failed may be tried again: after 5 s, doubling up to 5 min.

    Another term, or another command, starts over.
    """

    def __init__(self) -> None:
        self._what: object = None
        self._until = 0.0
        self._pause = _FIRST_PAUSE

    def failed(self, what: object, now: float) -> None:
        """Note that it did not work at `now`, seconds on a clock that runs on."""
        if what != self._what:
            self._what, self._pause = what, _FIRST_PAUSE
        self._until = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def left(self, what: object, now: float) -> float:
        """Return for how many seconds it has to wait; 0 for none."""
        return max(0.0, self._until - now) if what == self._what else 0.0
