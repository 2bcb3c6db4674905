"""What a process uses: memory as the kernel counts it, processor time to the nanosecond."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

_KB = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes (10^6 bytes): resident, and the own share of what processes share."""

    rss: float
    pss: float


def memory(pid: int) -> Memory:
    """Return the memory of a process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest.split()[0]) * _KB / 1e6
    return Memory(found["Rss"], found["Pss"])


def processor(pid: int) -> float:
    """Return the seconds that the threads of a process have run.

    The scheduler counts them exactly; the ticks in `stat` miss what a timer wakes. Threads that
    have ended are forgotten: those of ours and of the rivals at rest live on.
    """
    exact = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            exact += int((thread / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return exact / 1e9


@dataclass(frozen=True, slots=True)
class Load:
    """A stretch of time of some processes: seconds passed, seconds run."""

    elapsed: float
    used: dict[int, float]

    def share(self, pid: int) -> float:
        """Return the share of one core in percent."""
        return 100 * self.used[pid] / self.elapsed


def load(pids: list[int], seconds: float) -> Load:
    """Watch some processes for a while."""
    began = time.monotonic()
    before = {pid: processor(pid) for pid in pids}
    time.sleep(seconds)
    used = {pid: processor(pid) - before[pid] for pid in pids}
    return Load(time.monotonic() - began, used)
