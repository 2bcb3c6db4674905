"""Who has the cluster: one run at a time, whose workers share it; one of them, while nodes stop.

Everything here is a lock of the kernel on a file: it is let go of also when its holder is killed.
"""

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.binaries import cache_folder, locked

_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)
"""What the workers of one run have in common, and nobody else has."""


def folder() -> Path:
    """Return where the locks are; there is one cluster for a user."""
    found = cache_folder() / "engine"
    found.mkdir(parents=True, exist_ok=True)
    return found


@contextmanager
def for_one_run(begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Hold the cluster for this run: its first worker begins, and its last one ends.

    Raises:
        Exception: what `begin` raised; then the next worker tries it again.
    """
    mark = folder() / "cluster.run"
    with (folder() / "cluster.lock").open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if _read(mark) == _RUN:
                break
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _read(mark) != _RUN:
                begin()
                mark.write_text(_RUN)
            # It cannot be held alone and then shared without a moment between: so look again.
        try:
            yield
        finally:
            if _is_last(lock.fileno()) and _read(mark) == _RUN:
                mark.unlink()
                end()


@contextmanager
def nodes(*, alone: bool) -> Iterator[None]:
    """Use the nodes beside others; or alone, to take from everybody what all of them need."""
    with locked(folder() / "nodes.lock", shared=not alone):
        yield


def _is_last(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(mark: Path) -> str:
    try:
        return mark.read_text()
    except FileNotFoundError:
        return ""
