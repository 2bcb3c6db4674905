"""`python -m benchmarks.crawler`: disturb the crawler under load, and print what it has shown.

Exit code 0 only when all of it is as promised.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import keeping, machine
from benchmarks.crawler import scenarios
from benchmarks.crawler.scenarios import RATE, TTL, Found, Through
from benchmarks.running import run
from benchmarks.table import Row, as_text
from tests.support.binaries import BinaryMissingError, etcd_binaries
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

_HANDOVERS, _KILLS, _FREEZES = 100, 50, 20
_QUICK = 3
_ADDED_WITHIN, _WRITES_WITHIN = 60.0, 1.0

WAYS: tuple[Through, ...] = ("forwarder", "follower")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    options = _options(arguments)
    rows: list[Row] = []
    try:
        facts = machine.facts(etcd_binaries(EtcdOptions().version).etcd, None)
        for name in options.only or SCENARIOS:
            rows += SCENARIOS[name](options.quick)
    except BinaryMissingError as missing:
        print(f"benchmarks: no etcd: {missing}", file=sys.stderr)
        return 1
    print(as_text(rows))
    if not options.quick and not options.only:
        path = keeping.place(facts, "crawler-faults")
        keeping.keep(path, rows, facts, command="make crawler-faults")
    return 0 if all(row.reached for row in rows) else 1


def _handovers(quick: bool) -> list[Row]:
    def row(found: Found, through: Through) -> Row:
        return Row(
            f"{found.changes} planned handovers, {RATE:g} requests/s through a {through}",
            f"{found.failed} of {found.acknowledged + found.failed} failed, "
            f"longest gap {found.longest_gap:.2f} s",
            at_least="0 failed",
            reached=not found.failed and found.is_clean,
        )

    return _under_load(scenarios.handovers, _QUICK if quick else _HANDOVERS, row)


def _kills(quick: bool) -> list[Row]:
    return _under_load(
        scenarios.kills, _QUICK if quick else _KILLS, _crash("SIGKILLs", longest_gap=TTL + 1)
    )


def _freezes(quick: bool) -> list[Row]:
    # Without a bound for the gap: who is connected to what is frozen waits for it, or for itself.
    return _under_load(scenarios.freezes, _QUICK if quick else _FREEZES, _crash("SIGSTOPs"))


def _crash(signals: str, longest_gap: float | None = None) -> Callable[[Found, Through], Row]:
    def row(found: Found, through: Through) -> Row:
        wrong = {
            what: sum(len(getattr(verdict, what)) for verdict in found.verdicts)
            for what in ("lost", "doubled", "unsettled", "stale")
        }
        counts = ", ".join(f"{number} {name}" for name, number in wrong.items())
        bounds = [] if longest_gap is None else [f"gap <= {longest_gap:g} s"]
        return Row(
            f"{found.changes} {signals} of leader and sidecar, {RATE:g} requests/s through a "
            f"{through}",
            f"{counts}; {found.failed} of {found.acknowledged + found.failed} failed, "
            f"{len(found.unclear)} unclearly; longest gap {found.longest_gap:.2f} s",
            at_least="; ".join(["nothing lost, doubled, stale or unclear", *bounds]),
            reached=found.is_clean
            and not found.unclear
            and (longest_gap is None or found.longest_gap <= longest_gap),
        )

    return row


def _scale(quick: bool) -> list[Row]:
    size = {"resources": 500, "workers": 4} if quick else {}
    with (
        tempfile.TemporaryDirectory(prefix="leader-sidecar-load-") as folder,
        EtcdCluster() as cluster,
    ):
        found = scenarios.scale(cluster, Path(folder), **size)
    return [
        Row(
            f"{found.resources} resources added through a follower",
            f"{found.added:.1f} s, {found.failed} failed, {found.verdict}",
            at_least=f"<= {_ADDED_WITHIN:g} s",
            reached=found.added <= _ADDED_WITHIN and not found.failed and found.verdict.is_clean,
        ),
        Row(
            "then a leader change, from write to write",
            f"{found.first_write:.2f} s",
            at_least=f"<= {_WRITES_WITHIN:g} s",
            reached=found.first_write <= _WRITES_WITHIN,
        ),
    ]


SCENARIOS: dict[str, Callable[[bool], list[Row]]] = {
    "handovers": _handovers,
    "kills": _kills,
    "freezes": _freezes,
    "scale": _scale,
}


def _under_load(
    scenario: Callable[..., Found], count: int, row: Callable[[Found, Through], Row]
) -> list[Row]:
    rows = []
    for through in WAYS:
        print(f"{scenario.__name__} through a {through} ...", file=sys.stderr)
        with (
            tempfile.TemporaryDirectory(prefix="leader-sidecar-load-") as folder,
            EtcdCluster() as cluster,
        ):
            found = scenario(cluster, Path(folder), through, count=count)
        for error, number in found.errors.most_common(5):
            print(f"  {number} x {error}", file=sys.stderr)
        rows.append(row(found, through))
    return rows


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crawler", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    names = ", ".join(SCENARIOS)
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), metavar="NAME", help=names
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    run(main)
