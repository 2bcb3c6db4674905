"""Crash failover: SIGKILL of the leading process -> the next one's `campaign` returns.

The killed process stays down, so the next one leads when etcd has let the lease end: up to one
renewal sooner than the TTL, and later by what etcd's own sweep (500 ms) and the way take. Ours and
the Go library's run at the same time in elections of their own, at random phases of their renewals;
both do nothing but wait.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict

from benchmarks import figures
from benchmarks.processes import Speaker, first_event, stamp
from benchmarks.setting import TTL, Limit, Outcome, Setting
from benchmarks.table import Row

_OVER_TTL = 0.7  # seconds
_CALIBRATION = 100.0  # milliseconds that a delete's way may take in a trial that counts
_WITHIN = 6.0 * TTL
_RENEWED_WITHIN = 2.0  # seconds; the Go library renews each TTL / 3


class Series:
    """A leader and a waiter; each trial kills the leader and adds a new waiter."""

    def __init__(self, start: Callable[[], Speaker], settled: str, stack: ExitStack) -> None:
        self._start, self._settled, self._stack = start, settled, stack
        self._standing = [self._stand()]
        self._standing[0].event("elected")
        self._standing.append(self._stand())
        self._killed_at = 0
        self.values: list[float] = []

    def kill(self) -> None:
        """Kill the leader."""
        self._killed_at = self._standing.pop(0).kill()

    def settle(self) -> None:
        """Wait for the next leader, note how long nobody led, let one more stand."""
        _, elected = first_event(self._standing, "elected", _WITHIN)
        self.values.append((stamp(elected) - self._killed_at) / 1e9)
        self._standing.append(self._stand())

    def _stand(self) -> Speaker:
        candidate = self._stack.enter_context(self._start())
        candidate.send("campaign x")
        candidate.event(self._settled)
        return candidate


def run(setting: Setting) -> Outcome:
    """Measure failovers after a crash."""
    trials = 1 if setting.quick else 30
    repeated = 0
    with ExitStack() as stack:
        names = [setting.name("/bench/failover") for _ in range(2)]
        series = {"ours": Series(lambda: setting.ours(names[0]), "standing", stack)}
        limit: Limit | None = None
        if setting.rivals is not None:
            series["go"] = Series(lambda: setting.go(names[1]), "campaigning", stack)
            limit = stack.enter_context(setting.limit())
        for number in range(trials):
            print(f"  failover {number + 1} of {trials}", file=sys.stderr)
            repeated += _calibrate(setting, limit)
            for one in series.values():
                setting.pause(0, _RENEWED_WITHIN)
                one.kill()
            for one in series.values():
                one.settle()
    values = {name: one.values for name, one in series.items()}
    summaries = {name: figures.summarize(found) for name, found in values.items()}
    row = _row(summaries["ours"], summaries.get("go"), repeated)
    data = {
        "unit": "s",
        "ttl": TTL,
        "repeated": repeated,
        "calibration_ms": _CALIBRATION,
        "summaries": {name: asdict(summary) for name, summary in summaries.items()},
        "trials": values,
    }
    return Outcome([row], data)


def _calibrate(setting: Setting, limit: Limit | None) -> int:
    """Wait for a moment in which the machine is not stalled; return how often it was."""
    stalled = 0
    while limit is not None and limit.trial() > _CALIBRATION:
        stalled += 1
        setting.pause(0.5, 1.5)
    return stalled


def _row(ours: figures.Summary, go: figures.Summary | None, repeated: int) -> Row:
    return Row(
        f"crash failover minus TTL ({TTL} s), p50 and worst of {ours.count} ({repeated} repeated)",
        _over(ours),
        _over(go) if go else "",
        "",
        f"worst <= +{_OVER_TTL:g} s",
        ours.worst - TTL <= _OVER_TTL,
    )


def _over(summary: figures.Summary) -> str:
    return f"{summary.p50 - TTL:+.2f} / {summary.worst - TTL:+.2f} s"
