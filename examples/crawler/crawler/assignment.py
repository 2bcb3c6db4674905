"""Who crawls what: pure functions from what is to what must be changed.

The leader carries the changes out one by one. Where it stops in between, the next leader computes
what is left from what it finds, so nothing about a reassignment is remembered anywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Move(NamedTuple):
    """A resource changes hands; `source` is "" or dead for one that nobody crawls."""

    resource: str
    source: str
    target: str


class Repair(NamedTuple):
    """An assignment's key that is missing where its resource names the Worker, or is astray."""

    resource: str
    worker: str
    is_missing: bool


def plan(placement: Mapping[str, str], workers: Collection[str]) -> tuple[Move, ...]:
    """Return the least moves after which living Workers crawl everything, in fair shares.

    Fair: no two Workers differ by more than one resource.

    Args:
        placement: the Worker of each resource; "" for none.
        workers: who lives. With nobody alive nothing moves.
    """
    if not workers:
        return ()
    held: dict[str, list[str]] = {worker: [] for worker in sorted(workers)}
    homeless: list[str] = []
    for name in sorted(placement):
        held.get(placement[name], homeless).append(name)
    least, remainder = divmod(len(placement), len(held))
    # The remainder stays with those that hold the most already: every other choice moves more.
    by_load = sorted(held, key=lambda worker: -len(held[worker]))
    shares = {worker: least + (place < remainder) for place, worker in enumerate(by_load)}
    for worker, names in held.items():
        homeless += names[shares[worker] :]
    moves: list[Move] = []
    for worker, names in held.items():
        for _ in range(shares[worker] - len(names)):
            name = homeless[len(moves)]
            moves.append(Move(name, placement[name], worker))
    return tuple(moves)


def repairs(
    placement: Mapping[str, str], assignments: Collection[tuple[str, str]]
) -> tuple[Repair, ...]:
    """Return how assignments' keys differ from what the resources say.

    They never do by our own hand, since each transaction writes both; somebody else may.

    Args:
        placement: the Worker of each resource; "" for none.
        assignments: (Worker, resource) of each key.
    """
    wanted = {(worker, name) for name, worker in placement.items() if worker}
    present = set(assignments)
    astray = (Repair(name, worker, is_missing=False) for worker, name in present - wanted)
    missing = (Repair(name, worker, is_missing=True) for worker, name in wanted - present)
    return tuple(sorted((*astray, *missing)))
