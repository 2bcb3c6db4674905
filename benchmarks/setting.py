"""What every bench gets: the etcd, the rivals, a folder, how thorough to be, where to talk to."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import Summary
from benchmarks.processes import Speaker, python, stamp
from benchmarks.table import Row
from tests.support.etcd_cluster import EtcdCluster

TTL = 5
"""Seconds; of every lease, ours and the rivals'."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """The Go programs."""

    elect: Path
    limit: Path


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a bench has found: lines of the table, and everything it measured, for the JSON."""

    rows: list[Row]
    data: dict[str, object]


@dataclass(frozen=True)
class Setting:
    """Where the benches run.

    `folder` takes what programs say; `memory` is for status directories, which in a pod are in
    memory, too. `rivals` is None where there is no Go.
    """

    cluster: EtcdCluster
    folder: Path
    memory: Path
    rivals: Rivals | None
    quick: bool
    rng: random.Random = field(default_factory=random.Random)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def endpoints(self) -> str:
        """Where etcd listens, as for `--endpoints`."""
        return ",".join(self.cluster.endpoints)

    def name(self, stem: str) -> str:
        """Return a name that no program or key of this run has yet."""
        return f"{stem}-{next(self._numbers)}"

    def pause(self, least: float, most: float) -> None:
        """Let a random time pass, so that trials do not keep step with timers."""
        time.sleep(self.rng.uniform(least, most))

    def ours(
        self, election: str, *, count: int = 1, ttl: float = TTL, share_watch: bool = False
    ) -> Speaker:
        """Start a process with candidates of our library."""
        command = python("candidate", "--endpoints", self.endpoints, "--election", election)
        command += ["--ttl", str(ttl), "--count", str(count)]
        command += ["--share-watch"] if share_watch else []
        return Speaker(command, name=self.name("ours"), folder=self.folder)

    def go(self, election: str) -> Speaker:
        """Start a process with a candidate of etcd's Go library."""
        assert self.rivals is not None  # noqa: S101 - asked before
        flags = [f"-endpoints={self.endpoints}", f"-election={election}", f"-ttl={TTL}"]
        return Speaker([self.rivals.elect, *flags], name=self.name("go"), folder=self.folder)

    @contextmanager
    def limit(self) -> Iterator[Limit]:
        """Start the two processes that measure a delete's way to a watch."""
        assert self.rivals is not None  # noqa: S101 - asked before
        flags = [f"-endpoints={self.endpoints}", f"-key=/{self.name('limit')}"]
        program = self.rivals.limit
        with (
            Speaker([program, "watch", *flags], name=self.name("watch"), folder=self.folder) as w,
            Speaker([program, "put", *flags], name=self.name("put"), folder=self.folder) as p,
        ):
            w.event("watching")
            yield Limit(p, w)


class Limit:
    """A delete in one process, its event in another: the least that a handover can cost."""

    def __init__(self, putter: Speaker, watcher: Speaker) -> None:
        self._putter, self._watcher = putter, watcher

    def trial(self) -> float:
        """Return the milliseconds of one delete's way."""
        self._putter.send("")
        deleted = self._putter.event("deleted")
        seen = self._watcher.event("seen")
        return (stamp(seen) - stamp(deleted, "t_called")) / 1e6


def milliseconds(summary: Summary) -> str:
    """Return p50, p90 and p99 as they are printed."""
    return f"{summary.p50:.2f} / {summary.p90:.2f} / {summary.p99:.2f} ms"
