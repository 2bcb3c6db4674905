"""What happens to the fleet under load, and what is promised of it."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from benchmarks.crawler.fleet import Fleet, Pair, wipe
from benchmarks.crawler.load import Load, Told, longest_gap
from benchmarks.crawler.verify import Verdict, begin, judge
from tests.support.etcd_cluster import EtcdCluster

Through = Literal["forwarder", "follower"]

RATE = 200.0
TTL = 3.0
PER_RUN = 10
"""Changes of the leader in one run of the load; then everything is judged and forgotten."""

_DRAIN = ("--drain=1s", "--forward-drain=2s")
_SOME = 100
"""Acknowledged requests that show that all goes on."""
_SETTLED = 3.0
"""Seconds of load between two changes: longer than --forward-drain, so that a client that sends
once a second has left the connections of the term before."""
_FROZEN = 3.0
"""How long a Master is frozen, in times of the TTL."""
_WORKERS, _RESOURCES, _ADDERS = 20, 10_000, 64


@dataclass(slots=True)
class Found:
    """What a scenario has shown. Gaps are seconds without an acknowledged request."""

    changes: int = 0
    acknowledged: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that were not acknowledged."""
        return self.errors.total()

    @property
    def unclear(self) -> list[str]:
        """What failed without a clear error: by no answer in time, or by one that says nothing."""
        return [error for error in self.errors if not _is_clear(error)]

    @property
    def longest_gap(self) -> float:
        """The longest of all runs."""
        return max(self.gaps, default=0.0)

    @property
    def is_clean(self) -> bool:
        """Whether nothing acknowledged was lost, and nothing doubled."""
        return all(verdict.is_clean for verdict in self.verdicts)

    def add(self, told: Sequence[Told], errors: Counter[str], verdict: Verdict) -> None:
        """Add a run."""
        self.acknowledged += sum(one.is_done for one in told)
        self.errors += errors
        self.gaps.append(longest_gap(told))
        self.verdicts.append(verdict)


@dataclass(frozen=True, slots=True)
class Scale:
    """What many resources have cost.

    Attributes:
        added: seconds from the first request to the last answer.
        first_write: seconds between two writes of one client, the leader's change in between.
    """

    resources: int
    added: float
    failed: int
    first_write: float
    verdict: Verdict


def handovers(
    cluster: EtcdCluster, folder: Path, through: Through, *, count: int, rate: float = RATE
) -> Found:
    """Hand over so many times under load."""
    with Fleet(cluster, folder, ttl=TTL, sidecar=_DRAIN) as fleet:

        def change(fleet: Fleet, leader: Pair) -> None:
            before = leader.leadership.token or 0
            fleet.handover()
            fleet.leader(after=before)

        return _runs(cluster, fleet, folder, through, change, count=count, rate=rate)


def kills(
    cluster: EtcdCluster, folder: Path, through: Through, *, count: int, rate: float = RATE
) -> Found:
    """Kill the leading Master and its sidecar so many times under load."""
    with Fleet(cluster, folder, ttl=TTL) as fleet:

        def change(fleet: Fleet, leader: Pair) -> None:
            before = leader.leadership.token or 0
            leader.kill()
            fleet.leader(after=before)
            leader.start()

        return _runs(cluster, fleet, folder, through, change, count=count, rate=rate)


def freezes(
    cluster: EtcdCluster, folder: Path, through: Through, *, count: int, rate: float = RATE
) -> Found:
    """Freeze the leading Master and its sidecar beyond their lease, so many times under load."""
    with Fleet(cluster, folder, ttl=TTL) as fleet:

        def change(fleet: Fleet, leader: Pair) -> None:
            before, thaw_at = leader.leadership.token or 0, time.monotonic() + _FROZEN * TTL
            leader.freeze()
            fleet.leader(after=before)
            time.sleep(max(thaw_at - time.monotonic(), 0))
            leader.thaw()

        return _runs(cluster, fleet, folder, through, change, count=count, rate=rate)


def scale(
    cluster: EtcdCluster, folder: Path, *, resources: int = _RESOURCES, workers: int = _WORKERS
) -> Scale:
    """Add many resources through a Master that follows, then change the leader."""
    with Fleet(cluster, folder, ttl=5.0, workers=workers) as fleet:
        start = fleet.ask(begin)
        with Load(fleet.follower.http, "scale", folder, users=_ADDERS, limit=resources) as load:
            load.wait(600.0)
            told = list(load.told)
        took = max(one.at for one in told) - min(one.sent for one in told)
        verdict = fleet.ask(partial(judge, told=told, start=start))
        with Load(fleet.follower.http, "probe", folder, users=1) as probe:
            probe.wait_for_more(_SOME)
            fleet.handover()
            probe.wait_for_more(_SOME)
            probe.stop()
        failed = len(told) + len(probe.told) - load.done - probe.done
        return Scale(len(told), took, failed, longest_gap(probe.told), verdict)


def _runs(
    cluster: EtcdCluster,
    fleet: Fleet,
    folder: Path,
    through: Through,
    change: Callable[[Fleet, Pair], None],
    *,
    count: int,
    rate: float,
) -> Found:
    found = Found()
    host = fleet.follower.forwarded if through == "forwarder" else fleet.follower.http
    while found.changes < count:
        wipe(cluster)
        start = fleet.ask(begin)
        with Load(host, f"run{found.changes}", folder, rate=rate) as load:
            load.wait_for_more(_SOME)
            for _ in range(min(PER_RUN, count - found.changes)):
                change(fleet, fleet.leader())
                found.changes += 1
                load.wait_for_more(int(rate * _SETTLED))
                fleet.wait_for_line()
            load.stop()
        verdict = fleet.ask(partial(judge, told=load.told, start=start))
        found.add(load.told, load.errors(), verdict)
        print(
            f"  {found.changes} of {count}: {found.acknowledged} acknowledged, "
            f"{found.failed} failed, longest gap {found.longest_gap:.2f} s, {verdict}",
            file=sys.stderr,
        )
    return found


def _is_clear(error: str) -> bool:
    status, _, message = error.partition(" ")
    if status == "0":  # the connection broke: it was closed or reset, not silent
        return "timed out" not in message and "Timeout" not in message
    return message not in {"", "no JSON", "no message"}
