"""Prometheus metrics of one election, on a registry of the caller's.

What depends on the time is computed when it is asked for. The counts are kept here as plain
numbers, so that the exposition holds exactly the series of the table below and nothing more.
`python -m sidecar.outputs.metrics` prints that table for the documentation.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

import sidecar
from sidecar.core.state import ElectionState, Reason
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock
from sidecar.outputs import forward_metrics, pod_metrics
from sidecar.outputs.descriptions import Description, Histogram, table

RENEWAL_RESULTS = ("proven", "unproven", "unavailable", "rejected", "lost")
_RENEWAL_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CAMPAIGN_BOUNDS = (0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 10.0, 60.0, 600.0, 3600.0)


_P = "leader_election_"
MASTER_STATUS = Description(
    f"{_P}master_status",
    "gauge",
    ("name",),
    "1 while this candidate leads and may act, else 0, decided at the moment of the scrape.",
)
TRANSITIONS = Description(
    f"{_P}transitions_total",
    "counter",
    ("name",),
    "Changes of the leader, to another candidate or to nobody, that this sidecar has seen.",
)
TERM_TOKEN = Description(
    f"{_P}term_token",
    "gauge",
    ("name",),
    "Fencing token of the term that runs as far as this sidecar knows; 0 when nobody leads.",
)
CANDIDATES = Description(
    f"{_P}candidates",
    "gauge",
    ("name",),
    "Candidates in the queue, the leader included.",
)
LEASE_REMAINING = Description(
    f"{_P}lease_remaining_seconds",
    "gauge",
    ("name",),
    "Seconds for which this candidate may still act without another renewal; 0 for a follower.",
)
RENEWALS = Description(
    f"{_P}renewals_total",
    "counter",
    ("name", "result"),
    "Tries to renew the lease, by result: proven (it lets the leader act on), unproven "
    "(answered, but no proof), unavailable (no answer), rejected, lost (the lease is gone).",
)
RENEWAL_DURATION = Description(
    f"{_P}renewal_duration_seconds",
    "histogram",
    ("name",),
    "How long tries to renew the lease took, whatever their result.",
)
LAST_SEEN = Description(
    f"{_P}etcd_last_seen_timestamp_seconds",
    "gauge",
    ("name",),
    "Unix time of the last answer from etcd; absent before the first.",
)
STEP_DOWNS = Description(
    f"{_P}step_downs_total",
    "counter",
    ("name", "reason"),
    "Terms of this candidate that ended, by reason.",
)
CAMPAIGN_DURATION = Description(
    f"{_P}campaign_duration_seconds",
    "histogram",
    ("name",),
    "How long campaigns of this candidate took from their begin to being elected.",
)
OUTPUT_ERRORS = Description(
    f"{_P}output_errors_total",
    "counter",
    ("name", "output"),
    "Failed tries of an output (status file, pod label and so on); each is tried again.",
)
BUILD_INFO = Description(
    "leader_sidecar_build_info",
    "gauge",
    ("version", "python"),
    "Always 1; the labels say which sidecar this is.",
)
DESCRIPTIONS = (
    MASTER_STATUS,
    TRANSITIONS,
    TERM_TOKEN,
    CANDIDATES,
    LEASE_REMAINING,
    RENEWALS,
    RENEWAL_DURATION,
    LAST_SEEN,
    STEP_DOWNS,
    CAMPAIGN_DURATION,
    OUTPUT_ERRORS,
    BUILD_INFO,
)


class Metrics(Collector):
    """The metrics of one election; an `election.ports.Meter`. May be used from any thread."""

    def __init__(
        self,
        registry: CollectorRegistry,
        election: str,
        feed: Feed[ElectionState],
        clock: Clock,
    ) -> None:
        """Register with `registry`."""
        self._election = election
        self._feed = feed
        self._clock = clock
        self._registry = registry
        self._lock = threading.Lock()
        self._transitions = 0
        self._renewals = dict.fromkeys(RENEWAL_RESULTS, 0)
        self._renewal_seconds = Histogram(_RENEWAL_BOUNDS)
        self._campaign_seconds = Histogram(_CAMPAIGN_BOUNDS)
        self._step_downs: dict[str, int] = {}
        self._output_errors: dict[str, int] = {}
        self._last_seen: float | None = None
        registry.register(self)

    def renewed(self, result: str, seconds: float) -> None:
        """Count a try of a renewal."""
        with self._lock:
            self._renewals[result] = self._renewals.get(result, 0) + 1
            self._renewal_seconds.observe(seconds)

    def store_answered(self) -> None:
        """Remember when etcd answered."""
        self._last_seen = self._clock.wall()

    def leader_changed(self) -> None:
        """Count a change of the leader."""
        with self._lock:
            self._transitions += 1

    def stepped_down(self, reason: str) -> None:
        """Count an ended term of our own."""
        with self._lock:
            self._step_downs[reason] = self._step_downs.get(reason, 0) + 1

    def elected(self, seconds: float) -> None:
        """Count a campaign that succeeded."""
        with self._lock:
            self._campaign_seconds.observe(seconds)

    def output_failed(self, output: str) -> None:
        """Count a failed try of an output."""
        with self._lock:
            self._output_errors[output] = self._output_errors.get(output, 0) + 1

    def expose(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type, negotiated by the Accept header."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Name the metrics to the registry, which checks them for clashes."""
        return [about.metric() for about in DESCRIPTIONS]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as of now."""
        now = self._clock.now()
        state = self._feed.value.at(now)
        leads = state.is_leader(now)
        yield self._gauge(MASTER_STATUS, float(leads))
        yield self._gauge(TERM_TOKEN, float(state.leader.token) if state.leader else 0.0)
        yield self._gauge(CANDIDATES, float(len(state.candidates)))
        yield self._gauge(LEASE_REMAINING, state.deadline - now if leads else 0.0)
        if self._last_seen is not None:
            yield self._gauge(LAST_SEEN, self._last_seen)
        with self._lock:
            yield from self._counts()
        info = GaugeMetricFamily(BUILD_INFO.name, BUILD_INFO.help, labels=BUILD_INFO.labels)
        info.add_metric([sidecar.__version__, platform.python_version()], 1.0)
        yield info

    def _counts(self) -> list[Metric]:
        transitions = CounterMetricFamily(TRANSITIONS.name, TRANSITIONS.help, labels=("name",))
        transitions.add_metric([self._election], self._transitions)
        return [
            transitions,
            self._counter(RENEWALS, self._renewals),
            self._renewal_seconds.family(RENEWAL_DURATION, self._election),
            # Reasons that may come are there from the start, so that `increase` sees the first.
            self._counter(STEP_DOWNS, {**dict.fromkeys(END_REASONS, 0), **self._step_downs}),
            self._campaign_seconds.family(CAMPAIGN_DURATION, self._election),
            self._counter(OUTPUT_ERRORS, self._output_errors),
        ]

    def _gauge(self, about: Description, value: float) -> Metric:
        family = GaugeMetricFamily(about.name, about.help, labels=about.labels)
        family.add_metric([self._election], value)
        return family

    def _counter(self, about: Description, counts: dict[str, int]) -> Metric:
        family = CounterMetricFamily(about.name, about.help, labels=about.labels)
        for value, count in counts.items():
            family.add_metric([self._election, value], count)
        return family


_BEGINNINGS = {Reason.STARTING, Reason.WAITING, Reason.ELECTED, Reason.RESUMED}
END_REASONS = tuple(str(reason) for reason in Reason if reason not in _BEGINNINGS)


def page() -> str:
    """Return the documentation page about the metrics."""
    return (
        "# Metrics\n\n"
        "Served at `/metrics`, as OpenMetrics or Prometheus text, whichever is asked for.\n"
        "The label `name` is the election. Written by `python -m sidecar.outputs.metrics`.\n\n"
        f"{table(DESCRIPTIONS)}\n\n"
        "With `--forward` also:\n\n"
        f"{table(forward_metrics.DESCRIPTIONS)}\n\n"
        "Where the sidecar labels its pod (`--label`) also:\n\n"
        f"{table(pod_metrics.DESCRIPTIONS)}\n"
    )


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is how the documentation is made
