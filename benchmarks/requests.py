"""What an election costs etcd: requests per handover, per failover, and per hour at rest.

Counted by etcd itself: messages that clients have sent, so each renewal on a stream counts, and the
events of a watch do not. Each candidate has a lease and renewals of its own, as if it were a
process of its own; in the smaller elections a watch, too. In the larger ones two cores cannot
decode what all those watches tell, so the candidates of a process share one (at rest that leaves
out one read of each candidate in 50 s), and for the same reason the largest has a longer TTL.

From what a handover or a failover takes, what the same time takes at rest is subtracted. Proofs (a
renewal and a read each) are told apart by their renewals: how many of them fall into a stretch of
time is chance, and there may be hundreds of them a second.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks import figures
from benchmarks.processes import Speaker, first_event, stamp
from benchmarks.setting import TTL, Outcome, Setting
from benchmarks.table import Row
from benchmarks.usage import load
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import wait_until

COUNTS = (3, 30, 300, 1000)
_SHARED_FROM = 300
_LONG_TTL_FROM = 1000
_LONG_TTL = 30.0
_PROCESSES = 4
_JOIN_WITHIN = 300.0
_ELECTED_WITHIN = 60.0
_HANDOVERS = 20
_CRASHES = 5
_SETTLE = 1.0
_GROWN = 1.0  # requests more at the largest election than at the smallest that count as none
_SEEN_WITHIN = 1.0  # requests: a proof that is half done when the counters are read
_COUNTER = re.compile(
    r'^grpc_server_msg_received_total\{grpc_method="(\w+)".*\} (\S+)$', re.MULTILINE
)

Requests = Counter[str]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one election of some size has cost."""

    candidates: int
    ttl: float
    join_s: float
    rest_per_hour: float
    rest_by_method: dict[str, float]
    handover: float
    handover_proofs: float
    return_too: float
    return_too_proofs: float
    handover_ms: float
    failover: float
    failovers: list[float]
    cpu_percent_per_candidate: float


@dataclass(frozen=True, slots=True)
class Excess:
    """Requests over what the same time takes at rest; `proofs` are renewals and their reads."""

    other: float
    proofs: float

    def each(self, parts: int) -> Excess:
        """Return the share of one of several causes."""
        return Excess(self.other / parts, self.proofs / parts)


def excess(made: Requests, elapsed: float, rest: dict[str, float]) -> Excess:
    """Return what `made` within `elapsed` seconds is above the rates (per second) at rest."""
    renewals, renewals_at_rest = made["LeaseKeepAlive"], rest.get("LeaseKeepAlive", 0.0)
    other = made.total() - 2 * renewals
    other_at_rest = sum(rest.values()) - 2 * renewals_at_rest
    return Excess(other - other_at_rest * elapsed, 2 * (renewals - renewals_at_rest * elapsed))


def count(cluster: EtcdCluster) -> Requests:
    """Return how many messages of each method etcd has received from clients so far."""
    text = wait_until(lambda: cluster.members[0].http_get("/metrics") or "", "etcd's metrics")
    return Counter({method: int(float(value)) for method, value in _COUNTER.findall(text)})


def run(setting: Setting) -> Outcome:
    """Measure elections of growing size."""
    found = []
    for candidates in COUNTS[:2] if setting.quick else COUNTS:
        print(f"  {candidates} candidates", file=sys.stderr)
        with ExitStack() as stack:
            found.append(_Crowd(setting, stack, candidates).measure())
    return Outcome(rows(found), {"sizes": [asdict(cost) for cost in found]})


def ttl_of(candidates: int) -> float:
    """Return the TTL in an election of this size, in seconds."""
    return _LONG_TTL if candidates >= _LONG_TTL_FROM else TTL


def rows(found: Sequence[Cost]) -> list[Row]:
    """Return the lines of the table."""
    sizes = ", ".join(f"{cost.candidates:,}" for cost in found)
    ttls = ", ".join(f"{cost.ttl:g}" for cost in found)
    last = found[-1]

    def series(values: Sequence[float], digits: int) -> str:
        return " / ".join(f"{value:,.{digits}f}" for value in values)

    handovers = [cost.handover for cost in found]
    failovers = [cost.failover for cost in found]
    again = [cost.return_too for cost in found]
    return [
        Row(
            f"etcd requests per handover, {sizes} candidates",
            series(handovers, 1),
            at_least="not growing",
            reached=handovers[-1] - handovers[0] <= _GROWN,
        ),
        Row("... with the former leader's standing again (and a proof)", series(again, 1)),
        Row(
            f"... per failover, median of up to {_CRASHES} (+- {_SEEN_WITHIN:g})",
            series(failovers, 1),
            at_least="not growing",
            reached=failovers[-1] - failovers[0] <= _GROWN + _SEEN_WITHIN,
        ),
        Row(
            f"etcd requests per hour at rest, each candidate (TTL {ttls} s)",
            series([cost.rest_per_hour / cost.candidates for cost in found], 0),
        ),
        Row("handover, p50", f"{series([cost.handover_ms for cost in found], 1)} ms"),
        Row(
            "processor at rest, each candidate",
            f"{series([cost.cpu_percent_per_candidate for cost in found], 3)} % of a core",
        ),
        Row(f"time until {last.candidates:,} candidates have joined", f"{last.join_s:.1f} s"),
    ]


class _Crowd:
    """One election of some size: some candidates with processes of their own, then all others."""

    def __init__(self, setting: Setting, stack: ExitStack, candidates: int) -> None:
        self._setting = setting
        self._candidates = candidates
        self._rest: dict[str, float] = {}
        election = setting.name("/bench/requests")
        # Who crashes must be alone in its process.
        alone = min(1 if setting.quick else _CRASHES, candidates - 1)
        self._alone = [stack.enter_context(setting.ours(election)) for _ in range(alone)]
        for speaker in self._alone:
            speaker.event("ready")
            speaker.send("campaign x")
            speaker.event("standing")
        self._leader, _ = first_event(self._alone, "elected")
        rest = self._crowd = candidates - alone
        shared = candidates >= _SHARED_FROM
        ttl = ttl_of(candidates)
        self._others = [
            stack.enter_context(setting.ours(election, count=size, ttl=ttl, share_watch=shared))
            for size in shares(rest, min(_PROCESSES, rest))
        ]

    def measure(self) -> Cost:
        """Let all join, rest, hand over, and crash, in this order."""
        quick = self._setting.quick
        join_s = self._join()
        time.sleep(_SETTLE)
        before = count(self._setting.cluster)
        used = load([other.pid for other in self._others], 5.0 if quick else 60.0)
        made = count(self._setting.cluster) - before
        self._rest = {method: number / used.elapsed for method, number in made.items() if number}
        handover, return_too, took = self._hand_over()
        failovers = [self._crash().other for _ in list(self._alone)]
        return Cost(
            candidates=self._candidates,
            ttl=ttl_of(self._candidates),
            join_s=join_s,
            rest_per_hour=sum(self._rest.values()) * 3600,
            rest_by_method=self._rest,
            handover=handover.other,
            handover_proofs=handover.proofs,
            return_too=return_too.other,
            return_too_proofs=return_too.proofs,
            handover_ms=took,
            failover=figures.quantile(failovers, 0.5),
            failovers=failovers,
            cpu_percent_per_candidate=100 * sum(used.used.values()) / used.elapsed / self._crowd,
        )

    def _join(self) -> float:
        """Return the seconds from the first command to the last candidate's standing."""
        for other in self._others:
            other.event("ready")
        began = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        for other in self._others:
            other.send("campaign x")
        joined = [other.event("standing", _JOIN_WITHIN) for other in self._others]
        return max(stamp(event) - began for event in joined) / 1e9

    def _hand_over(self) -> tuple[Excess, Excess, float]:
        """Return what a handover costs, the same with the return, and the milliseconds (p50)."""
        alone, complete = Excess(0, 0), Excess(0, 0)
        took: list[float] = []
        batches = 10 if self._candidates <= _HANDOVERS else 2
        size = min(_HANDOVERS, self._candidates - 1)
        for _ in range(batches):
            counted = self._counting()
            gone = [self._resign(took) for _ in range(size)]
            alone = _sum(alone, counted())
            for speaker in set(gone):
                speaker.send("campaign x")
            for speaker in set(gone):
                speaker.event("standing", _ELECTED_WITHIN)
            time.sleep(_SETTLE)
            complete = _sum(complete, counted())
        return (
            alone.each(batches * size),
            complete.each(batches * size),
            figures.quantile(took, 0.5),
        )

    def _resign(self, took: list[float]) -> Speaker:
        """Let the leader resign and not stand again; return its process."""
        former = self._leader
        former.send("resign")
        resigned = former.event("resigned", _ELECTED_WITHIN)
        self._leader, elected = first_event(
            [*self._alone, *self._others], "elected", _ELECTED_WITHIN
        )
        took.append((stamp(elected) - stamp(resigned, "t_called")) / 1e6)
        return former

    def _crash(self) -> Excess:
        """Return what the crash of the leader costs; its process holds no other candidate."""
        while self._leader not in self._alone:
            former = self._resign([])
            former.send("campaign x")
            former.event("standing", _ELECTED_WITHIN)
        self._alone.remove(self._leader)
        counted = self._counting()
        self._leader.kill()
        self._leader, _ = first_event([*self._alone, *self._others], "elected", _ELECTED_WITHIN)
        time.sleep(_SETTLE)
        return counted()

    def _counting(self) -> Callable[[], Excess]:
        """Return a function that says what has been requested since now."""
        began, before = time.monotonic(), count(self._setting.cluster)

        def counted() -> Excess:
            made = count(self._setting.cluster) - before
            return excess(made, time.monotonic() - began, self._rest)

        return counted


def _sum(one: Excess, other: Excess) -> Excess:
    return Excess(one.other + other.other, one.proofs + other.proofs)


def shares(whole: int, parts: int) -> list[int]:
    """Return how many each of some processes gets, as even as can be."""
    return [whole // parts + (number < whole % parts) for number in range(parts)]
