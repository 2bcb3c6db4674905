"""Records what status files told, and judges the record: one leader at a time, growing tokens.

A thread reads all files again and again, as programs beside the sidecars would. A belief lasts
from the end of the first look that found it to the beginning of the last one, so it never seems
longer than it was: two that overlap are two leaders for certain.
"""

import itertools
import threading
from dataclasses import dataclass
from pathlib import Path

from sidecar import boottime

LOOK_EVERY = 0.002  # seconds


@dataclass(slots=True)
class Belief:
    """One status file said leader from `since` to `until` (CLOCK_BOOTTIME), as far as seen."""

    name: str
    token: int
    since: float
    until: float
    valid_until: float


def problems(beliefs: list[Belief], *, tokens_may_shrink: bool = False) -> list[str]:
    """Return what is wrong with a record, one sentence each."""
    found = []
    for one, other in itertools.combinations(beliefs, 2):
        overlap = min(one.until, other.until) - max(one.since, other.since)
        if overlap > 0:
            found.append(f"two leaders for {overlap:.4f} s: {one} and {other}")
        if one.token == other.token and one.name != other.name:
            found.append(f"one token of two leaders: {one} and {other}")
    if not tokens_may_shrink:
        ordered = sorted(beliefs, key=lambda belief: belief.since)
        for earlier, later in itertools.pairwise(ordered):
            if later.token < earlier.token:
                found.append(f"tokens shrink: {earlier}, then {later}")
    return found


class Recorder:
    """Looks at status directories until it is stopped."""

    def __init__(self) -> None:
        self._directories: dict[str, Path] = {}
        self._current: dict[str, Belief] = {}
        self._beliefs: list[Belief] = []
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def add(self, name: str, directory: Path) -> None:
        """Look at this directory, too."""
        with self._lock:
            self._directories[name] = directory

    def forget(self, name: str) -> None:
        """Leave out a name whose directory is another one's."""
        with self._lock:
            self._directories.pop(name, None)
            self._beliefs = [belief for belief in self._beliefs if belief.name != name]

    @property
    def beliefs(self) -> list[Belief]:
        """All so far, in the order in which they began."""
        with self._lock:
            return list(self._beliefs)

    def stop(self) -> None:
        """End the thread; a second time does nothing."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(LOOK_EVERY):
            with self._lock:
                for name, directory in self._directories.items():
                    self._look(name, directory)

    def _look(self, name: str, directory: Path) -> None:
        began = boottime.now()
        document, problem = boottime.read_status(str(directory / "status.json"))
        if problem is not None or document["role"] != "leader":
            self._current.pop(name, None)
            return
        token, until = document["token"], document["valid_until_boottime"]
        assert isinstance(token, int)
        assert isinstance(until, int | float)
        known = self._current.get(name)
        if known is not None and known.token == token and began < known.valid_until:
            known.until, known.valid_until = began, until
            return
        now = boottime.now()
        self._current[name] = Belief(name, token, now, now, until)
        self._beliefs.append(self._current[name])
