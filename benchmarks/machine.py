"""On what was measured: the machine, its load, the versions."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def facts(etcd: Path, go_program: Path | None) -> dict[str, str]:
    """Return what a reader needs to judge the figures, as text."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "etcd": _found(r"etcd Version: (\S+)", [str(etcd), "--version"]),
        "go": _found(r": go(\S+)", ["go", "version", str(go_program)]) if go_program else "",
        "load average at start": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "commit": commit(),
    }


def commit() -> str:
    """Return the short name of the commit, with a + when files differ from it; "" outside git."""
    name = _found(r"(\S+)", ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"])
    changed = _found(r"(\S)", ["git", "-C", str(REPOSITORY), "status", "--porcelain", "-uno"])
    return f"{name}+" if name and changed else name


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _found(pattern: str, command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(pattern, done.stdout)
    return found[1] if found and done.returncode == 0 else ""
