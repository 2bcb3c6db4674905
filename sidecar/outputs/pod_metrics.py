"""Prometheus metrics of the pod's label; there only when it is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.outputs.descriptions import Description, Histogram

_BOUNDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

_P = "leader_election_pod_"
PATCHES = Description(
    f"{_P}patches_total",
    "counter",
    ("name", "result"),
    "Patches of the own pod that were sent, by result: patched, conflict (the pod had changed "
    "meanwhile; read again and repeated at once), unauthorized, forbidden, not_found, throttled, "
    "unavailable (an error of the API server), rejected (any other no), unanswered.",
)
PATCH_DURATION = Description(
    f"{_P}patch_duration_seconds",
    "histogram",
    ("name",),
    "How long patches of the own pod took, whatever their result.",
)
LABEL_DELAY = Description(
    f"{_P}label_delay_seconds",
    "histogram",
    ("name",),
    "From a change of this candidate's role to the answer that its pod shows it, tries that failed "
    "included.",
)
DESCRIPTIONS = (PATCHES, PATCH_DURATION, LABEL_DELAY)


class PodMetrics(Collector):
    """The metrics of one pod's label; a `sidecar.kube.label.PodMeter`."""

    def __init__(self, registry: CollectorRegistry, election: str, results: Sequence[str]) -> None:
        """Register with `registry`; `results` are there from the start."""
        self._election = election
        self._lock = threading.Lock()
        self._patches = dict.fromkeys(results, 0)
        self._durations = Histogram(_BOUNDS)
        self._delays = Histogram(_BOUNDS)
        registry.register(self)

    def patched(self, result: str, seconds: float) -> None:
        """Count a patch."""
        with self._lock:
            self._patches[result] = self._patches.get(result, 0) + 1
            self._durations.observe(seconds)

    def told(self, seconds: float) -> None:
        """Count a change of role that the pod shows now."""
        with self._lock:
            self._delays.observe(seconds)

    def describe(self) -> list[Metric]:
        """Name the metrics to the registry, which checks them for clashes."""
        return [about.metric() for about in DESCRIPTIONS]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as of now."""
        with self._lock:
            patches = CounterMetricFamily(PATCHES.name, PATCHES.help, labels=PATCHES.labels)
            for result, count in self._patches.items():
                patches.add_metric([self._election, result], count)
            durations = self._durations.family(PATCH_DURATION, self._election)
            delays = self._delays.family(LABEL_DELAY, self._election)
        yield from (patches, durations, delays)
