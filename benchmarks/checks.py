"""`leader-sidecar check` beside an interpreter that does nothing, in turns."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import figures
from benchmarks.processes import BenchError
from benchmarks.setting import Outcome, Setting
from benchmarks.sidecars import leader, start
from benchmarks.table import Row
from tests.support.procs import inherited_environment

_ABOVE = 20.0  # milliseconds
_LIMIT = 20.0  # seconds for one


def run(setting: Setting) -> Outcome:
    """Measure what `check` costs a probe."""
    rounds = 5 if setting.quick else 60
    script = Path(sys.executable).with_name("leader-sidecar")
    own = [str(script)] if script.exists() else [sys.executable, "-m", "sidecar"]
    with ExitStack() as stack:
        leading = leader(start(setting, stack, setting.name("/bench/check")))
        commands = {
            "check": [*own, "check", "--status-dir", str(leading.status_dir)],
            "pass": [sys.executable, "-c", "pass"],
        }
        found: dict[str, list[float]] = {name: [] for name in commands}
        for order in figures.turns(tuple(commands), rounds):
            for name in order:
                found[name].append(_took(commands[name]))
    check, nothing = (figures.quantile(found[name], 0.5) for name in ("check", "pass"))
    row = Row(
        "`check` above `python -c pass`, median",
        f"{check - nothing:.1f} ms ({check:.1f} ms in all)",
        f"{nothing:.1f} ms",
        f"{check / nothing:.2f}",
        f"<= {_ABOVE:g} ms above",
        check - nothing <= _ABOVE,
    )
    summaries = {name: asdict(figures.summarize(values)) for name, values in found.items()}
    return Outcome([row], {"unit": "ms", "summaries": summaries, "rounds": found})


def _took(command: list[str]) -> float:
    """Return the milliseconds that a command takes, from its start to its end."""
    began = time.monotonic()
    done = subprocess.run(
        command, capture_output=True, env=inherited_environment(), timeout=_LIMIT, check=False
    )
    took = (time.monotonic() - began) * 1e3
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} says {done.stderr.decode().strip()}")
    return took
