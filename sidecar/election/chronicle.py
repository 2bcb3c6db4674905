"""What is written down about a candidate's terms: for its own restart, and for everybody to read.

Best effort, and never in the way of acting or of stepping down.
"""

from __future__ import annotations

import logging

from sidecar.core import transactions
from sidecar.core.candidacy import Phase
from sidecar.core.codec import TermRecord
from sidecar.core.state import Reason
from sidecar.core.store import Put
from sidecar.election.election import Election
from sidecar.election.ports import Clock, Keeper, Standing
from sidecar.errors import CoordinatorError

log = logging.getLogger(__name__)

LOST = "lost"
"""How a term ended whose leader could not say so."""


class Chronicle:
    """Notes one candidate's candidacies and terms.

    Attributes:
        record: the running term as it was noted, or None.
    """

    def __init__(self, id_: str, *, keeper: Keeper, clock: Clock) -> None:
        self.record: TermRecord | None = None
        self._id = id_
        self._keeper = keeper
        self._clock = clock
        self._remembered = (0, 0)

    async def note(self, election: Election, *, has_led: bool) -> None:
        """Note what has become true: a candidacy stands, a term has begun."""
        if election.phase is not Phase.STANDING:
            return
        standing = (election.rev, election.session.lease)
        if standing != self._remembered:
            self._remembered = standing
            self._keeper.remember(_standing(election))
        if has_led and (self.record is None or self.record.token != election.rev):
            await self._note_term(election)

    def came_by_priority(self, token: int) -> bool:
        """Whether the term before this one ended in favour of a higher priority."""
        record = self.record
        return record is not None and record.token == token and record.before == Reason.PRIORITY

    def ended(self, election: Election, reason: Reason) -> tuple[Put, ...]:
        """Return what says in the history how this term ended, to be written with its end."""
        if self.record is None or self.record.token != election.rev:
            return ()
        until = self._clock.wall()
        return (transactions.ended_term(election.layout, self.record, until=until, reason=reason),)

    async def _note_term(self, election: Election) -> None:
        history = election.observer.replica.history
        token = election.rev
        before = max((other for other in history if other < token), default=0)
        how = (history[before].reason or LOST) if before else ""
        known = history.get(token)
        self.record = known or TermRecord(token, self._id, self._clock.wall(), before=how)
        if known is not None:
            return  # resumed: a former process has written it
        txn = transactions.begun_term(
            election.layout, election.key.encode(), self.record, tuple(history)
        )
        session = election.session
        try:
            await session.coordinator.txn(txn, timeout=session.call_limit)
        except CoordinatorError as exc:
            log.info("history not written token=%d error=%s", token, exc)


def _standing(election: Election) -> Standing:
    session, header = election.session, election.header
    cluster_id = header.cluster_id if header else election.observer.replica.cluster_id
    return Standing(session.lease, election.key, election.rev, session.ttl, cluster_id)
