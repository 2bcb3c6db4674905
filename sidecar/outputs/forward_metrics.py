"""Prometheus metrics of the forwarder; there only when something is forwarded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.outputs.descriptions import Description, Histogram

_WAIT_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_P = "leader_election_forward_"
OPEN = Description(
    f"{_P}connections_open",
    "gauge",
    ("name",),
    "Connections of clients that are open now, those that wait for a leader included.",
)
ACCEPTED = Description(
    f"{_P}connections_total",
    "counter",
    ("name",),
    "Connections of clients that were accepted.",
)
BYTES = Description(
    f"{_P}bytes_total",
    "counter",
    ("name", "direction"),
    "Bytes that were carried, by direction: to_leader, to_client.",
)
WAIT = Description(
    f"{_P}wait_seconds",
    "histogram",
    ("name",),
    "How long clients waited until the leader was reached, or they were refused.",
)
REFUSED = Description(
    f"{_P}refused_total",
    "counter",
    ("name", "reason"),
    "Connections that were closed without having reached a leader, by reason: no_leader and "
    "unreachable (in time), too_many (at once), no_resources (of the machine; left to wait, not "
    "closed), loop (they came from this forwarder itself), client_gone, "
    "stopping, failed (by an error of the forwarder, which is logged).",
)
OUTLIVED = Description(
    f"{_P}outlived_total",
    "counter",
    ("name",),
    "Connections that were closed because the term in which they were made was over.",
)
DESCRIPTIONS = (OPEN, ACCEPTED, BYTES, WAIT, REFUSED, OUTLIVED)


class Tally(Protocol):
    """The bytes that went one way."""

    @property
    def bytes(self) -> int:
        """How many."""
        ...


class ForwardNumbers(Protocol):
    """What the forwarder counts; `sidecar.forward.meter.ForwardMeter` is one."""

    @property
    def open(self) -> int:
        """Connections now."""
        ...

    @property
    def accepted(self) -> int:
        """Connections since the start."""
        ...

    @property
    def to_leader(self) -> Tally:
        """What clients sent."""
        ...

    @property
    def to_client(self) -> Tally:
        """What leaders sent."""
        ...

    @property
    def outlived(self) -> int:
        """Connections closed with their term."""
        ...

    @property
    def refused(self) -> Mapping[str, int]:
        """Connections refused, by reason."""
        ...


class ForwardMetrics(Collector):
    """The metrics of one forwarder."""

    def __init__(self, registry: CollectorRegistry, election: str, numbers: ForwardNumbers) -> None:
        """Register with `registry`."""
        self._election = election
        self._numbers = numbers
        self._lock = threading.Lock()
        self._waits = Histogram(_WAIT_BOUNDS)
        registry.register(self)

    def waited(self, seconds: float) -> None:
        """Count how long a client waited."""
        with self._lock:
            self._waits.observe(seconds)

    def describe(self) -> list[Metric]:
        """Name the metrics to the registry, which checks them for clashes."""
        return [about.metric() for about in DESCRIPTIONS]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as of now."""
        numbers = self._numbers
        gauge = GaugeMetricFamily(OPEN.name, OPEN.help, labels=OPEN.labels)
        gauge.add_metric([self._election], numbers.open)
        yield gauge
        yield self._counter(ACCEPTED, numbers.accepted)
        moved = {"to_leader": numbers.to_leader.bytes, "to_client": numbers.to_client.bytes}
        yield self._counter(BYTES, moved)
        with self._lock:
            waits = self._waits.family(WAIT, self._election)
        yield waits
        yield self._counter(REFUSED, numbers.refused)
        yield self._counter(OUTLIVED, numbers.outlived)

    def _counter(self, about: Description, counts: int | Mapping[str, int]) -> Metric:
        family = CounterMetricFamily(about.name, about.help, labels=about.labels)
        if isinstance(counts, int):
            family.add_metric([self._election], counts)
        else:
            for label, count in counts.items():
                family.add_metric([self._election, label], count)
        return family
