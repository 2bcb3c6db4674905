"""Requests from a pod of its own, and what came of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.support.kubectl import Kubectl
from tests.e2e.support.programs import Running, running
from tests.support.procs import wait_until

_PROGRAM = Path(__file__).resolve().parents[1] / "load_program.py"
_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of the requests so far.

    Attributes:
        longest_gap: seconds without a good answer.
        answered_at: wall clock of the last good answer, seconds since 1970.
        served_by: good answers by the Master that gave them.
        acknowledged: the names of the resources that were added.
    """

    sent: int
    answered: int
    failures: int
    failed: list[str]
    longest_gap: float
    slowest: float
    answered_at: float
    served_by: dict[str, int]
    acknowledged: list[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that go on."""

    program: Running

    def tally(self) -> Tally:
        """Return what came of them so far."""
        return Tally(**self.program.told())

    def goes_on(self, more: int = 100) -> Tally:
        """Wait for some more answers."""
        until = self.tally().answered + more

        def enough() -> Tally | None:
            tally = self.tally()
            return tally if tally.answered >= until else None

        return wait_until(enough, f"{more} more answers", _WITHIN)


@contextmanager
def load(
    kubectl: Kubectl,
    image: str,
    url: str,
    per_second: int = 40,
    *,
    name: str = "load",
    adds: str = "",
) -> Iterator[Load]:
    """Ask a URL from a pod of this name until the end.

    Args:
        adds: add resources there instead, whose names begin with this; each until it is there.
    """
    words = (url, str(per_second), adds)
    with running(kubectl, image, _PROGRAM, *words, name=name) as program:
        under_way = Load(program)
        under_way.goes_on(20)
        yield under_way
