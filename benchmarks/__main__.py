"""`python -m benchmarks`: run the benches, print the table, keep the results.

Exit code 0 when everything was measured, reached or not; 1 when a bench has no figure.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import (
    checks,
    failover,
    footprint,
    forward,
    forward_memory,
    handover,
    keeping,
    machine,
    requests,
    sidecars,
)
from benchmarks.processes import BenchError
from benchmarks.running import run
from benchmarks.setting import Outcome, Rivals, Setting
from benchmarks.table import Row, as_text
from tests.support.binaries import (
    BUILT_VERSION,
    BinaryMissingError,
    available_versions,
    go_program,
)
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions

BENCHES = {
    "handover": handover.run,
    "failover": failover.run,
    "sidecars": sidecars.run,
    "footprint": footprint.run,
    "requests": requests.run,
    "check": checks.run,
    "forward": forward.run,
    "forward-memory": forward_memory.run,
}
_MEMORY = Path("/dev/shm")  # noqa: S108 - only for directories with names of their own


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benches that were asked for; return the exit code."""
    options = _options(arguments)
    version = next(iter(available_versions()), BUILT_VERSION)
    rivals = _rivals()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="leader-sidecar-bench-") as folder,
            tempfile.TemporaryDirectory(prefix="leader-sidecar-bench-", dir=_in_memory()) as memory,
            EtcdCluster(EtcdOptions(version=version)) as cluster,
        ):
            facts = machine.facts(cluster.binaries.etcd, rivals.elect if rivals else None)
            setting = Setting(cluster, Path(folder), Path(memory), rivals, quick=options.quick)
            found = {name: _run(name, setting) for name in options.only or BENCHES}
    except BinaryMissingError as missing:
        print(f"benchmarks: no etcd to measure with: {missing}", file=sys.stderr)
        return 1
    rows = [row for outcome in found.values() for row in outcome.rows]
    print(as_text(rows))
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    _keep(options, rows, facts, found)
    return 0 if all(outcome.data for outcome in found.values()) else 1


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds: to see that it runs")
    parser.add_argument(
        "--only", action="append", choices=list(BENCHES), metavar="NAME", help=", ".join(BENCHES)
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where to write; else benchmarks/results/"
    )
    return parser.parse_args(arguments)


def _in_memory() -> str | None:
    """Return a folder that is in memory, or None for the usual one where there is none."""
    return str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None


def _rivals() -> Rivals | None:
    try:
        return Rivals(go_program("goelect"), go_program("golimit"))
    except BinaryMissingError as missing:
        print(f"benchmarks: nothing to compare with: {missing}", file=sys.stderr)
        return None


def _run(name: str, setting: Setting) -> Outcome:
    """Run one bench; one that fails costs the others nothing."""
    print(f"{name} ...", file=sys.stderr)
    began = time.monotonic()
    try:
        outcome = BENCHES[name](setting)
    except (BenchError, AssertionError) as failure:  # a wait of the tests' support that ran out
        print(f"{name}: {failure}", file=sys.stderr)
        return Outcome([Row(f"{name}: not measured")], {})
    outcome.data["took_s"] = time.monotonic() - began
    return outcome


def _keep(
    options: argparse.Namespace,
    rows: Sequence[Row],
    facts: dict[str, str],
    found: dict[str, Outcome],
) -> None:
    """Keep the results; those of a quick or partial run only where asked to."""
    path: Path | None = options.json
    if path is None and not options.quick and not options.only:
        path = keeping.place(facts)
    if path is not None:
        benches = {name: outcome.data for name, outcome in found.items()}
        keeping.keep(path, rows, facts, quick=options.quick, benches=benches)


if __name__ == "__main__":
    run(main)
