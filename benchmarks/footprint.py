"""Sidecars at rest: memory and processor time of a leader and of followers, beside goelect's.

Three sidecars and three Go candidates are watched over the same stretch of time. PSS shares the
libraries among the three; on a node with one sidecar it is nearer to RSS.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks.setting import Outcome, Setting
from benchmarks.sidecars import COUNT, leader, start
from benchmarks.table import Row
from benchmarks.usage import load, memory

_RSS = 56.0  # MB, on grpc.aio
_CPU = 0.5  # percent of a core
_SETTLE = 5.0  # seconds after the start that do not count

Figures = dict[str, dict[str, float]]


def run(setting: Setting) -> Outcome:
    """Measure memory and processor time at rest."""
    seconds = 3.0 if setting.quick else 90.0
    with ExitStack() as stack:
        sidecars = start(setting, stack, setting.name("/bench/footprint"))
        leading = leader(sidecars)
        sidecars.sort(key=lambda sidecar: sidecar is not leading)
        pids = _named("sidecar", [sidecar.child.pid for sidecar in sidecars])
        if setting.rivals is not None:
            election = setting.name("/bench/footprint")
            go = [stack.enter_context(setting.go(election)) for _ in range(COUNT)]
            go[0].send("campaign x")
            go[0].event("elected")
            for follower in go[1:]:
                follower.send("campaign x")
                follower.event("campaigning")
            pids |= _named("goelect", [speaker.pid for speaker in go])
        time.sleep(1.0 if setting.quick else _SETTLE)
        used = load(list(pids.values()), seconds)
        found: Figures = {}
        for name, pid in pids.items():
            held = memory(pid)
            found[name] = {"rss_mb": held.rss, "pss_mb": held.pss, "cpu_percent": used.share(pid)}
    return Outcome(rows(found), {"seconds": seconds, "processes": found})


def rows(found: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Return the lines of the table for processes named "sidecar leader", "goelect follower"..."""
    lines = []
    for role in ("leader", "follower"):
        ours, go = _worst(found, f"sidecar {role}"), _worst(found, f"goelect {role}")
        lines += [
            _row(f"memory at rest, {role}: RSS", "MB", "rss_mb", ours=ours, go=go, at_most=_RSS),
            _row(f"memory at rest, {role}: PSS", "MB", "pss_mb", ours=ours, go=go),
            _row(
                f"processor at rest, {role}",
                "% of a core",
                "cpu_percent",
                ours=ours,
                go=go,
                at_most=_CPU,
            ),
        ]
    return lines


def _row(
    what: str,
    unit: str,
    figure: str,
    *,
    ours: Mapping[str, float],
    go: Mapping[str, float],
    at_most: float | None = None,
) -> Row:
    digits = 2 if unit.startswith("%") else 1
    return Row(
        what,
        f"{ours[figure]:.{digits}f} {unit}",
        f"{go[figure]:.{digits}f} {unit}" if go else "",
        f"{ours[figure] / go[figure]:.2f}" if go and go[figure] else "",
        f"<= {at_most:g} {unit}" if at_most is not None else "",
        ours[figure] <= at_most if at_most is not None else None,
    )


def _worst(found: Mapping[str, Mapping[str, float]], stem: str) -> dict[str, float]:
    """Return the largest of each figure among the processes of one kind; {} without any."""
    kind = [figures for name, figures in found.items() if name.startswith(stem)]
    return {name: max(one[name] for one in kind) for name in kind[0]} if kind else {}


def _named(kind: str, pids: list[int]) -> dict[str, int]:
    names = [f"{kind} leader", *(f"{kind} follower {n}" for n in range(1, len(pids)))]
    return dict(zip(names, pids, strict=True))
