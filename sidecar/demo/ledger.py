"""Who acted when, and whether that was as promised; pure: no clock, no files.

**How a gap is measured.** An interval of leadership begins when the sidecar says it does (`since`
in its status file, whole milliseconds of the wall clock) and ends when it says it stepped down. One
that died, was frozen or lost etcd can say nothing: its interval ends at the `valid_until_boottime`
that it wrote last, as until then a program beside it may believe it. The wall clock's stamps are
turned into CLOCK_BOOTTIME at the moment when they are read; a stamp that cannot be true, and a term
that goes on after a suspension (whose `since` does not change), counts from when we saw it. The gap
is the time from the latest end of all intervals before to the beginning of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

STAMP = 0.001
"""Seconds by which two stamps of whole milliseconds may mislead."""


@dataclass(frozen=True, slots=True)
class View:
    """One candidate's status file at one moment.

    Attributes:
        id: whose it is.
        leads: whether it may be believed to lead, judged when it was read.
        token: the term's fencing token, 0 for none.
        deadline: until when it may be believed, CLOCK_BOOTTIME seconds; 0 for none.
        since: its last change of role, CLOCK_BOOTTIME seconds; None if the file is not believed.
    """

    id: str
    leads: bool = False
    token: int = 0
    deadline: float = 0.0
    since: float | None = None
    reason: str = ""
    link: str = ""
    candidates: tuple[str, ...] = ()
    is_paused: bool = False


@dataclass(slots=True)
class Interval:
    """One uninterrupted time in which one candidate might act; CLOCK_BOOTTIME seconds."""

    id: str
    token: int
    start: float
    deadline: float
    gap: float = 0.0
    """Seconds for which nobody led before it."""
    end: float | None = None
    why: str = ""
    """Why it ended, in the sidecar's words."""
    goes_on: bool = False
    """Whether it is a term that was suspended before."""


@dataclass(slots=True)
class Ledger:
    """All intervals since the start, and every promise that was broken."""

    intervals: list[Interval] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    looks: int = 0
    _open: dict[str, Interval] = field(default_factory=dict)

    @property
    def terms(self) -> int:
        """How many terms were seen."""
        return len({interval.token for interval in self.intervals})

    @property
    def last_end(self) -> float | None:
        """When the latest leadership ended; None while one lasts or before the first."""
        ends = [interval.end for interval in self.intervals]
        if not ends or None in ends:
            return None
        return max(end for end in ends if end is not None)

    def note(self, views: Sequence[View], now: float) -> None:
        """Take in one look at all status files.

        What two files say at once must have been true at one moment: the caller looks twice.
        """
        self.looks += 1
        # Ends first: the gap is counted from them.
        for view in views:
            current = self._open.get(view.id)
            if current is not None and not (view.leads and view.token == current.token):
                self._close(current, view, now)
        leading = [view for view in views if view.leads]
        for view in leading:
            if view.id in self._open:
                self._open[view.id].deadline = view.deadline
            else:
                self._begin(view, now)
        if len(leading) > 1:
            names = " and ".join(f"{view.id} (token {view.token})" for view in leading)
            self._break(f"two led at once: {names}")

    def _close(self, interval: Interval, view: View, now: float) -> None:
        interval.end, interval.why = min(interval.deadline, now), view.reason
        since = view.since
        told = since is not None and interval.start <= since and view.reason != "deadline_passed"
        if told and since is not None:
            interval.end = min(interval.end, since)
        del self._open[view.id]

    def _begin(self, view: View, now: float) -> None:
        own = [interval for interval in self.intervals if interval.id == view.id]
        before = max((interval.end or 0.0 for interval in own), default=0.0)
        is_true = view.since is not None and before <= view.since <= now
        start = view.since if is_true and view.since is not None else now
        interval = Interval(view.id, view.token, start, view.deadline)
        interval.goes_on = any(term.token == view.token for term in own)
        if self.intervals:
            end = max(i.deadline if i.end is None else i.end for i in self.intervals)
            interval.gap = max(0.0, start - end)
            if start < end - STAMP:
                over = (end - start) * 1000
                self._break(f"{view.id} (token {view.token}) began {over:.0f} ms too early")
        self._check_token(interval)
        self.intervals.append(interval)
        self._open[view.id] = interval

    def _check_token(self, interval: Interval) -> None:
        largest = max(self.intervals, key=lambda i: i.token, default=None)
        if largest is None or interval.token > largest.token:
            return
        if (interval.id, interval.token) != (largest.id, largest.token):
            self._break(
                f"the token did not grow: {interval.id} leads with {interval.token}, after "
                f"{largest.id} with {largest.token}"
            )

    def _break(self, promise: str) -> None:
        if promise not in self.broken:
            self.broken.append(promise)
