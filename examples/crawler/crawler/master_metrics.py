"""What a Master counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The Master's metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter(
            "crawler_calls",
            "Calls by operation, by what became of them, and whether they were passed on.",
            ["operation", "code", "by"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "crawler_call_seconds",
            "How long calls took, waiting for a leader included.",
            ["operation"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.busy = Gauge(
            "crawler_calls_under_way",
            "Calls that are being carried out, passed on, or wait for a leader.",
            registry=self.registry,
        )
        self.leads = Gauge(
            "crawler_master_leads", "1 while this Master leads.", registry=self.registry
        )
        self.moves = Counter(
            "crawler_moves", "Resources that were given to another Worker.", registry=self.registry
        )
