"""A run of locust beside us, and what its log says."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.procs import Child

USERS_PER_RATE = 1
"""So many users for each request per second, so each sends one a second: while calls wait no longer
than that for a leader, the rate stays what it is."""

_LOOK_EVERY = 0.05  # seconds; seldom enough not to slow down what is measured
_STOP_WITHIN = 60.0
_FIRST_WITHIN = 60.0
_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Told:
    """How one request ended; times by the monotonic clock, status 0 without an answer."""

    name: str
    request_id: str
    sent: float
    at: float
    status: int
    error: str

    @property
    def is_done(self) -> bool:
        """Whether it was acknowledged."""
        return self.status == 200


class Load:
    """Adds resources until it is left; a context manager.

    Args:
        host: where to, such as http://127.0.0.1:8080.
        run: begins the name of each resource.
        rate: requests per second; None: as many as `users` get answered.
        limit: requests after which it ends by itself; 0: none.
    """

    def __init__(
        self,
        host: str,
        run: str,
        folder: Path,
        *,
        rate: float | None = None,
        users: int = 0,
        limit: int = 0,
    ) -> None:
        users = users or int((rate or 1) * USERS_PER_RATE)
        self._log = folder / f"{run}.jsonl"
        self._limit = limit
        self._read_to = 0
        self.done = 0
        """How many requests were acknowledged, at the last look."""
        self.told: list[Told] = []
        command = [sys.executable, "-m", "locust", "--locustfile", str(_LOCUSTFILE), "--headless"]
        command += ["--users", str(users), "--spawn-rate", str(users), "--host", host]
        command += ["--stop-timeout", "30", "--only-summary", "--loglevel", "WARNING"]
        self.child = Child(
            command,
            name=f"locust-{run}",
            folder=folder,
            cwd=_ROOT,
            env={
                "LOAD_LOG": str(self._log),
                "LOAD_RUN": run,
                "LOAD_PER_USER": str((rate or 0) / users),
                "LOAD_LIMIT": str(limit),
            },
        )

    def __enter__(self) -> Self:
        self.child.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.child.close()

    def wait_for_more(self, count: int, within: float = _FIRST_WITHIN) -> None:
        """Wait until so many more requests were acknowledged."""
        enough = self.done + count
        self._until(lambda: self.done >= enough, f"{count} more acknowledged", within)

    def stop(self) -> None:
        """Let what is under way end, then end."""
        self.child.terminate(_STOP_WITHIN)
        self._look()

    def wait(self, within: float) -> None:
        """Wait until so many requests were answered as the limit allows."""
        self._until(lambda: len(self.told) >= self._limit, f"{self._limit} answers", within)
        self.stop()

    def errors(self) -> Counter[str]:
        """Count what the others were told."""
        return Counter(f"{told.status} {told.error}" for told in self.told if not told.is_done)

    def _until(self, condition: Callable[[], bool], what: str, within: float) -> None:
        deadline = time.monotonic() + within
        self._look()
        while not condition():
            if time.monotonic() > deadline or not self.child.running:
                raise AssertionError(
                    f"not within {within:g} s: {what}; the others: "
                    f"{self.errors().most_common(5)}\n{self.child.tail()}"
                )
            time.sleep(_LOOK_EVERY)
            self._look()

    def _look(self) -> None:
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read_to)
                lines = log.read()
            lines = lines[: lines.rfind(b"\n") + 1]
            self._read_to += len(lines)
            new = [Told(**json.loads(line)) for line in lines.splitlines()]
            self.done += sum(told.is_done for told in new)
            self.told += new


def longest_gap(told: Sequence[Told]) -> float:
    """Return the longest time (seconds) without an acknowledged request."""
    times = sorted(one.at for one in told if one.is_done)
    return max((after - before for before, after in itertools.pairwise(times)), default=0.0)
