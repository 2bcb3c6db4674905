"""What a candidate tells the world: it turns what is known into one `ElectionState` after another.

Nothing is decided here. The reasons deserve the care: a term that was stepped down from, a term
that was taken away, and a term that is only suspended must never be told as one another.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from sidecar.core.candidacy import Phase
from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Reason, Role
from sidecar.election.contact import Contact
from sidecar.election.election import Election
from sidecar.election.feed import Feed
from sidecar.election.observer import Observer
from sidecar.election.ports import Clock, Meter

log = logging.getLogger(__name__)

_KEEPS_KEY = (Phase.STANDING, Phase.STOPPING)


class Telling:
    """Publishes the states of one candidate.

    Args:
        state: where to; its first value says which election and which candidate.
        idle_role: the role while it does not lead.
        silence: seconds without an answer after which the store counts as out of reach.

    Attributes:
        reason: why the candidate is what it is; set before what it explains happens.
        led_token: the token of the latest term in which it has acted, or 0.
        led_since: when that term began (CLOCK_BOOTTIME).
        resumed_token: the token of a term that was taken up from a former process, or 0.
    """

    def __init__(
        self,
        state: Feed[ElectionState],
        *,
        observer: Observer,
        contact: Contact,
        clock: Clock,
        meter: Meter,
        idle_role: Role,
        silence: float,
    ) -> None:
        self.state = state
        self.reason = Reason.STARTING
        self.led_token = 0
        self.led_since = NEVER
        self.resumed_token = 0
        self._observer = observer
        self._contact = contact
        self._clock = clock
        self._meter = meter
        self._idle_role = idle_role
        self._silence = silence
        self._campaign_began = NEVER
        self._began_because = Reason.ELECTED
        self._is_end_told = True
        self._since_token = 0
        self._since = 0.0

    def campaign_begins(self) -> None:
        """Count the time until elected from now."""
        self._campaign_began = self._clock.now()

    def has_led(self, election: Election) -> bool:
        """Whether this candidate has acted in the term that the election stands in now."""
        return election.rev != 0 and election.rev == self.led_token

    def tell(self, election: Election | None, *, least_token: int) -> None:
        """Publish what is true now; who is first with a token below `least_token` leads not."""
        now = self._clock.now()
        old = self.state.value
        replica = self._observer.replica
        leading = election if election is not None and election.is_leader() else None
        if leading is not None and leading.rev != self.led_token:
            self._begin_term(leading, now)
        link = self._link(election, now)
        is_known = replica.is_synced and link is Link.CONNECTED
        role = Role.LEADER if leading else self._idle_role
        token = leading.rev if leading else 0
        reason = self._why_leading() if leading else self._why_not(election, least_token)
        new = replace(
            old,
            role=role,
            token=token,
            key=leading.key if leading else "",
            deadline=leading.deadline if leading else NEVER,
            kept_until=NEVER if leading else self._kept_until(election),
            leader=self._leader(least_token) if is_known else None,
            transitions=self._observer.transitions,
            candidates=tuple(entry.proposal.id for entry in replica.entries),
            reason=reason,
            link=link,
            is_registered=election is not None and election.entry is not None,
            is_paused=replica.is_paused,
            is_duplicate=self._has_twin(election),
            since=self._role_since(old, role, token, reason),
        )
        self.state.publish(new)

    def next_change(self, election: Election | None) -> float | None:
        """Return in how many seconds something becomes untrue by itself, or None."""
        now = self._clock.now()
        times = [self._contact.answered_at + self._silence]
        if election is not None:
            times.append(election.deadline)
        return min((at - now for at in times if at > now), default=None)

    def _begin_term(self, election: Election, now: float) -> None:
        is_resumed = election.rev == self.resumed_token
        self.led_token, self.led_since = election.rev, now
        self._began_because = Reason.RESUMED if is_resumed else Reason.ELECTED
        if not is_resumed:
            self._meter.elected(now - self._campaign_began)

    def _why_leading(self) -> Reason:
        self._is_end_told = False
        self.reason = self._began_because
        return self.reason

    def _leader(self, least_token: int) -> Leader | None:
        leader = self._observer.leader.value
        return leader if leader is not None and leader.token >= least_token else None

    def _kept_until(self, election: Election | None) -> float:
        """Return until when the key of a term that was acted in stands, if nobody asked it to go.

        From the moment that a request which can remove it is sent, it may be gone.
        """
        if election is None or election.phase not in _KEEPS_KEY or not self.has_led(election):
            return NEVER
        return election.session.deadline  # not the term's own, which a pause stops

    def _why_not(self, election: Election | None, least_token: int) -> Reason:
        """Return why it does not lead, and note how a term ended."""
        if not self._is_end_told:
            if self.reason is self._began_because:  # it did not step down: something else ended it
                forced = self._forced_end(election)
                if forced is Reason.DEADLINE_PASSED:
                    return forced  # suspended; the same term may go on
                self.reason = forced
            self._is_end_told = True
            self._meter.stepped_down(self.reason)
        if election is not None and election.is_first and election.rev < least_token:
            if self.state.value.reason is not Reason.TOKEN_WENT_BACK:
                log.error(
                    "tokens went back, nobody may act token=%d largest_seen=%d; restore etcd with "
                    "--bump-revision --mark-compacted, or start with --accept-token-reset",
                    election.rev,
                    least_token,
                )
            return Reason.TOKEN_WENT_BACK
        return self.reason

    def _forced_end(self, election: Election | None) -> Reason:
        if election is None or election.session.lost.is_set:
            return Reason.SESSION_LOST
        if election.rev != self.led_token:
            return Reason.KEY_GONE
        if self._observer.replica.is_paused:
            return Reason.PAUSED
        if election.entry is None:
            return Reason.KEY_GONE
        return Reason.DEADLINE_PASSED if election.is_first else Reason.STORE_REPLACED

    def _role_since(self, old: ElectionState, role: Role, token: int, reason: Reason) -> float:
        """Return when the present role began; a suspension does not interrupt a term."""
        if role is Role.LEADER:
            if token != self._since_token:
                self._since_token, self._since = token, self._clock.wall()
            return self._since
        if old.role is Role.LEADER and reason is not Reason.DEADLINE_PASSED:
            return self._clock.wall()
        return old.since

    def _link(self, election: Election | None, now: float) -> Link:
        if self._contact.silent_for() >= self._silence:
            is_lost = election is None or election.session.lost.is_set
            return Link.LOST if is_lost else Link.SUSPENDED
        stands = election is not None and election.phase is Phase.STANDING
        if stands and election is not None and self.has_led(election):
            return Link.CONNECTED if now < election.deadline else Link.SUSPENDED
        return Link.CONNECTED

    def _has_twin(self, election: Election | None) -> bool:
        """Whether an older candidate stands under the same id."""
        own = election.entry if election is not None else None
        return own is not None and any(
            entry.proposal.id == own.proposal.id and entry.token < own.token
            for entry in self._observer.replica.entries
        )
