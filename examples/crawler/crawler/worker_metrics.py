"""What a Worker counts, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_HUNDRED = 100


class WorkerMetrics:
    """The Worker's metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.resources = Gauge(
            "crawler_worker_resources", "Resources that are crawled now.", registry=registry
        )
        self.registered = Gauge(
            "crawler_worker_registered",
            "1 while the lease of this Worker lets it crawl.",
            registry=registry,
        )
        self._changes = Counter(
            "crawler_assignments",
            "Assignments acted on: taken, changed or dropped.",
            ["change"],
            registry=registry,
        )
        self._pages = Counter(
            "crawler_pages", "Pages fetched, by class of status.", ["status"], registry=registry
        )
        self._bytes = Counter("crawler_page_bytes", "Bytes of pages.", registry=registry)
        self._seconds = Histogram(
            "crawler_page_seconds", "Seconds that a page took.", registry=registry
        )
        self._writes = Counter(
            "crawler_results_writes",
            "Writes of results: done, refused because the resource is not ours, or unanswered.",
            ["result"],
            registry=registry,
        )

    def changed(self, change: str) -> None:
        """Count an assignment that was acted on."""
        self._changes.labels(change).inc()

    def page(self, status: int, size: int, seconds: float) -> None:
        """Count a page; status 0: there was no answer."""
        self._pages.labels(f"{status // _HUNDRED}xx" if status else "error").inc()
        self._bytes.inc(size)
        self._seconds.observe(seconds)

    def wrote(self, result: str) -> None:
        """Count a write of results."""
        self._writes.labels(result).inc()
