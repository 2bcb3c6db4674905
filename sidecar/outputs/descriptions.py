"""What a metric is for users, and histograms kept as plain numbers."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.core import HistogramMetricFamily, Metric


@dataclass(frozen=True, slots=True)
class Description:
    """One metric as users see it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str

    def metric(self) -> Metric:
        """Return it without values."""
        return Metric(self.name.removesuffix("_total"), self.help, self.kind)


class Histogram:
    """Counts of durations (seconds) by upper bound."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self._counts[bisect.bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, about: Description, election: str) -> Metric:
        """Return it with the election as its label."""
        names = [*map(str, self._bounds), "+Inf"]
        buckets = list(zip(names, map(float, itertools.accumulate(self._counts)), strict=True))
        family = HistogramMetricFamily(about.name, about.help, labels=about.labels)
        family.add_metric([election], buckets, self._sum)
        return family


def table(descriptions: Sequence[Description]) -> str:
    """Return metrics as a Markdown table."""
    rows = [
        f"| `{d.name}` | {d.kind} | {', '.join(f'`{label}`' for label in d.labels)} | {d.help} |"
        for d in descriptions
    ]
    return "\n".join(["| metric | type | labels | what it says |", "|---|---|---|---|", *rows])
