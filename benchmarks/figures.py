"""Quantiles, summaries, and the ratio of two series that were measured in turns. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is not within 0..1.
    """
    if not values or not 0 <= share <= 1:
        raise ValueError(f"no quantile {share} of {len(values)} values")
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)), 1) - 1]


@dataclass(frozen=True, slots=True)
class Summary:
    """One series in a few numbers, in the unit of its values."""

    count: int
    least: float
    p50: float
    p90: float
    p99: float
    worst: float


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of a series.

    Raises:
        ValueError: it is empty.
    """
    return Summary(
        len(values),
        quantile(values, 0),
        quantile(values, 0.5),
        quantile(values, 0.9),
        quantile(values, 0.99),
        quantile(values, 1),
    )


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours divided by the peer's, round by round: the median round, and the spread over rounds."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f} to {self.most:.2f})"


def ratio(
    ours: Sequence[Sequence[float]], peer: Sequence[Sequence[float]], share: float
) -> Ratio | None:
    """Return the ratio of a quantile over the rounds that both have run; None without any.

    Only values of one round are divided: what the machine did meanwhile was the same for both.
    """
    parts = [
        quantile(one, share) / quantile(other, share)
        for one, other in zip(ours, peer, strict=False)
        if one and other
    ]
    return Ratio(statistics.median(parts), min(parts), max(parts)) if parts else None


def turns(names: Sequence[str], rounds: int) -> list[tuple[str, ...]]:
    """Return who goes when in each round: everybody once, and each in turn first."""
    return [
        tuple(names[(number + place) % len(names)] for place in range(len(names)))
        for number in range(rounds)
    ]


def pooled(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return the values of all rounds as one series."""
    return [value for one in rounds for value in one]
