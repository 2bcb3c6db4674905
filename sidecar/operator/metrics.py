"""What the operator counts, and how elections stand, for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from sidecar.operator.reconciling import ElectionWorker
from sidecar.operator.spec import Election
from sidecar.outputs.descriptions import Description, table

_O, _E = "leader_sidecar_operator_", "leader_sidecar_election_"
_WHICH = ("namespace", "election")

IS_LEADER = Description(
    f"{_O}is_leader",
    "gauge",
    (),
    "1 while this replica of the operator reconciles, else 0; admission runs in all of them.",
)
ELECTIONS = Description(f"{_O}elections", "gauge", (), "Elections that this replica looks after.")
REQUESTS = Description(
    f"{_O}api_requests_total",
    "counter",
    ("verb", "resource", "code"),
    "Requests to the API server but for watches; `code` is none where there was no answer.",
)
REPAIRS = Description(
    f"{_O}repairs_total",
    "counter",
    _WHICH,
    "Labels put right that their sidecar had left wrong.",
)
MOVES = Description(
    f"{_O}moves_total",
    "counter",
    (*_WHICH, "reason", "result"),
    "Planned moves of the leader by reason (HandoverTo, NodeCordoned, Preferred, MaxTermDuration, "
    "Eviction) and result (Done, Refused, Failed).",
)
GAP = Description(
    f"{_E}last_gap_seconds",
    "gauge",
    _WHICH,
    "For how long nobody led at the last change of the leader, as the operator saw it in etcd.",
)
ADMISSIONS = Description(
    f"{_O}admissions_total",
    "counter",
    ("webhook", "result"),
    "Admission requests answered, by webhook (inject, evict) and result: injected, refused (to "
    "inject), moved, not_moved, nothing (to do), failed (an error; allowed all the same).",
)
CERTIFICATE = Description(
    f"{_O}certificate_not_after_timestamp_seconds",
    "gauge",
    (),
    "Unix time of the end of the webhooks' certificate; 0 while there is none.",
)
TOKEN = Description(
    f"{_E}token", "gauge", _WHICH, "Fencing token of the term that runs; 0 when nobody leads."
)
CANDIDATES = Description(f"{_E}candidates", "gauge", _WHICH, "Candidates in the queue.")
HEALTHY = Description(
    f"{_E}health",
    "gauge",
    (*_WHICH, "health"),
    "1 for the word that stands under HEALTH: Healthy, NoLeader, Paused, LabelsDiffer, "
    "ServiceAstray, StoreUnreachable, Invalid.",
)
RESULTS = {
    "inject": ("injected", "refused", "nothing", "failed"),
    "evict": ("moved", "not_moved", "nothing", "failed"),
}
"""Of admission, by webhook."""
DESCRIPTIONS = (
    IS_LEADER,
    ELECTIONS,
    REQUESTS,
    REPAIRS,
    MOVES,
    ADMISSIONS,
    CERTIFICATE,
    TOKEN,
    CANDIDATES,
    HEALTHY,
    GAP,
)


class OperatorMetrics(Collector):
    """The metrics of one replica; an `ApiMeter`, an `OperatorMeter` and an `AdmissionMeter`."""

    def __init__(self, registry: CollectorRegistry, leads: Callable[[], bool]) -> None:
        """Register with `registry`; `leads` is asked at each scrape."""
        self._leads = leads
        self._lock = threading.Lock()
        # From the start, or the first failure would be no increase.
        answers = [(webhook, result) for webhook, results in RESULTS.items() for result in results]
        self._counts: dict[str, dict[tuple[str, ...], float]] = {
            ADMISSIONS.name: dict.fromkeys(answers, 0.0)
        }
        self._gaps: dict[tuple[str, str], float] = {}
        self.workers: Callable[[], Collection[ElectionWorker]] = tuple
        self.certificate_until = 0.0
        registry.register(self)

    def requested(self, verb: str, resource: str, code: str) -> None:
        """Count a request to the API server."""
        self._count(REQUESTS, verb, resource, code)

    def repaired(self, election: Election) -> None:
        """Count a label that was put right."""
        self._count(REPAIRS, *election.key)

    def moved(self, election: Election, reason: str, result: str) -> None:
        """Count a planned move."""
        self._count(MOVES, *election.key, reason, result)

    def gap(self, election: Election, seconds: float) -> None:
        """Note the gap of a change."""
        self._gaps[election.key] = seconds

    def admitted(self, webhook: str, result: str) -> None:
        """Count an admission request."""
        self._count(ADMISSIONS, webhook, result)

    def describe(self) -> list[Metric]:
        """Name the metrics to the registry, which checks them for clashes."""
        return [about.metric() for about in DESCRIPTIONS]

    def collect(self) -> Iterator[Metric]:
        """Yield every metric as of now."""
        workers = list(self.workers())
        yield _gauge(IS_LEADER, {(): float(self._leads())})
        yield _gauge(ELECTIONS, {(): float(len(workers))})
        yield _gauge(CERTIFICATE, {(): self.certificate_until})
        keyed = {worker.election.key: worker for worker in workers}
        yield _gauge(TOKEN, {key: float(w.view.token) for key, w in keyed.items()})
        yield _gauge(CANDIDATES, {key: float(len(w.view.entries)) for key, w in keyed.items()})
        yield _gauge(HEALTHY, {(*key, w.health): 1.0 for key, w in keyed.items() if w.health})
        yield _gauge(GAP, {key: gap for key, gap in self._gaps.items() if key in keyed})
        with self._lock:
            for about in (REQUESTS, REPAIRS, MOVES, ADMISSIONS):
                family = CounterMetricFamily(about.name, about.help, labels=about.labels)
                for labels, count in self._counts.get(about.name, {}).items():
                    family.add_metric(labels, count)
                yield family

    def _count(self, about: Description, *labels: str) -> None:
        with self._lock:
            counts = self._counts.setdefault(about.name, {})
            counts[labels] = counts.get(labels, 0.0) + 1.0


def _gauge(about: Description, values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(about.name, about.help, labels=about.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def page() -> str:
    """Return the table of the operator's metrics."""
    return table(DESCRIPTIONS) + "\n"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - this is how the documentation is made
