"""Planned handover from library to library: resign called -> the next one's `campaign` returns.

Three candidates stand in a ring, each a process: the leader resigns, the next one leads, and the
former leader stands again. Ours, the Go library's and the limit take turns, round by round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from benchmarks import figures
from benchmarks.figures import Ratio
from benchmarks.processes import Speaker, first_event, stamp
from benchmarks.setting import Outcome, Setting
from benchmarks.table import Row

CANDIDATES = 3
_AT_MOST = 1.0  # times the Go library's
_PACE = (0.06, 0.08)


class Ring:
    """Candidates that hand the leadership round; `settled` is their word for "I stand again"."""

    def __init__(self, candidates: list[Speaker], settled: str) -> None:
        self._settled = settled
        self._candidates = candidates
        for candidate in candidates:
            candidate.send("campaign x")
            candidate.event(settled)
        self._leader, _ = first_event(candidates, "elected")

    def trial(self) -> float:
        """Return the milliseconds from the call of resign to the next one's knowing."""
        leader = self._leader
        leader.send("resign")
        called = stamp(leader.event("resigned"), "t_called")
        self._leader, elected = first_event(self._candidates, "elected")
        leader.send("campaign x")
        leader.event(self._settled)
        return (stamp(elected) - called) / 1e6


@contextmanager
def contestants(setting: Setting) -> Iterator[dict[str, Callable[[], float]]]:
    """Start all that is compared; yield a function for each that runs one trial."""
    with ExitStack() as stack:
        election = setting.name("/bench/handover")
        ours = [stack.enter_context(setting.ours(election)) for _ in range(CANDIDATES)]
        trials = {"ours": Ring(ours, "standing").trial}
        if setting.rivals is not None:
            election = setting.name("/bench/handover")
            go = [stack.enter_context(setting.go(election)) for _ in range(CANDIDATES)]
            trials["go"] = Ring(go, "campaigning").trial
            trials["limit"] = stack.enter_context(setting.limit()).trial
        yield trials


def run(setting: Setting) -> Outcome:
    """Measure planned handovers."""
    rounds, trials = (2, 10) if setting.quick else (6, 200)
    measured: dict[str, list[list[float]]] = {}
    with contestants(setting) as running:
        for trial in running.values():
            _round(setting, trial, trials // 10)  # to warm up; not counted
        for number, order in enumerate(figures.turns(tuple(running), rounds)):
            print(f"  round {number + 1} of {rounds}", file=sys.stderr)
            for name in order:
                measured.setdefault(name, []).append(_round(setting, running[name], trials))
    summaries = {n: figures.summarize(figures.pooled(r)) for n, r in measured.items()}
    return Outcome(
        rows(measured),
        {
            "unit": "ms",
            "candidates": CANDIDATES,
            "summaries": {name: asdict(summary) for name, summary in summaries.items()},
            "rounds": measured,
        },
    )


def rows(measured: dict[str, list[list[float]]]) -> list[Row]:
    """Return the lines of the table for series of rounds under "ours", "go" and "limit"."""
    ours, go = measured["ours"], measured.get("go", [])
    limit = measured.get("limit", [])
    found = [
        _row(f"planned handover, p{share * 100:.0f}", share, ours, go) for share in (0.5, 0.9, 0.99)
    ]
    if limit:
        both = figures.ratio(ours, limit, 0.5)
        p50 = figures.quantile(figures.pooled(limit), 0.5)
        found.append(
            Row("limit: delete -> watch event, p50", peer=f"{p50:.2f} ms", ratio=_text(both))
        )
    return found


def _row(what: str, share: float, ours: list[list[float]], go: list[list[float]]) -> Row:
    compared = figures.ratio(ours, go, share)
    asked = share in (0.5, 0.99)
    return Row(
        what,
        f"{figures.quantile(figures.pooled(ours), share):.2f} ms",
        f"{figures.quantile(figures.pooled(go), share):.2f} ms" if go else "",
        _text(compared),
        f"<= {_AT_MOST:g} x Go" if asked else "",
        compared.median <= _AT_MOST if asked and compared else None,
    )


def _text(compared: Ratio | None) -> str:
    return str(compared) if compared else ""


def _round(setting: Setting, trial: Callable[[], float], trials: int) -> list[float]:
    values = []
    for _ in range(trials):
        setting.pause(*_PACE)
        values.append(trial())
    return values
