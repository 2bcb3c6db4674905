"""The simulated network between processes and members: delay, loss, late arrival, duplicates."""

import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sidecar.errors import CoordinatorError
from tests.support.sim_process import Process, World


@dataclass(frozen=True, slots=True)
class Weather:
    """How the network behaves towards every message; times in seconds, chances from 0 to 1.

    Attributes:
        least, most: between these every message takes its own time.
        slow: the chance that it takes up to `slowest` more.
        loss: the chance that a message is lost.
        late: the chance that what is lost, or meets a cut, arrives after all, up to `latest`
            later or after the cut; a request then takes effect that nobody waits for any more.
        duplicate: the chance that a request is carried out a second time, up to `latest` later.
    """

    least: float = 0.0005
    most: float = 0.003
    slow: float = 0.0
    slowest: float = 0.5
    loss: float = 0.0
    late: float = 0.5
    latest: float = 10.0
    duplicate: float = 0.0


FAIR = Weather()
ROUGH = Weather(slow=0.02, slowest=1.5, loss=0.01, duplicate=0.01)
STORM = Weather(slow=0.2, slowest=3.0, loss=0.15, duplicate=0.05)


@dataclass(frozen=True, slots=True)
class Fate:
    """What is to happen to one request, named in advance; times in seconds.

    Attributes:
        matching: which request it is for, by its argument (a `Txn`, a lease, …).
        loses_request: it never takes effect.
        loses_reply: it takes effect, and nobody hears.
        request_delay, reply_delay: added to the way there and back.
        duplicate_after: it is carried out once more, so long after its arrival.
        error: it is refused with this, without effect.
    """

    matching: Callable[[Any], bool] = lambda _: True
    loses_request: bool = False
    loses_reply: bool = False
    request_delay: float = 0.0
    reply_delay: float = 0.0
    duplicate_after: float | None = None
    error: CoordinatorError | None = None


_NO_FATE = Fate()


class Network:
    """Carries messages between processes and members."""

    def __init__(self, world: World, weather: Weather = FAIR) -> None:
        self.world = world
        self.weather = weather
        self._cuts: set[tuple[str, int]] = set()
        self._fates: dict[tuple[str, str], deque[Fate]] = defaultdict(deque)
        self._parked: list[tuple[str, int, Callable[..., None], tuple[Any, ...]]] = []

    def delay(self) -> float:
        """Draw how long a message takes."""
        weather = self.weather
        drawn = weather.least + self.world.rng.random() * (weather.most - weather.least)
        if weather.slow and self.world.rng.random() < weather.slow:
            drawn += self.world.rng.random() * weather.slowest
        return drawn

    def carry(
        self,
        process: Process,
        member: int,
        extra: float,
        deliver: Callable[..., None],
        *args: Any,
    ) -> None:
        """Bring a message over, in either direction, and call `deliver(*args)`, or lose it."""
        delay = self.delay() + extra
        if self.weather.loss and self.world.rng.random() < self.weather.loss:
            if self.world.rng.random() >= self.weather.late:
                self.world.note(process.name, "message lost, member", member)
                return
            delay += self.world.rng.random() * self.weather.latest
        self.world.at(self.world.now + delay, self._arrive, process.name, member, deliver, args)

    def _arrive(
        self, name: str, member: int, deliver: Callable[..., None], args: tuple[Any, ...]
    ) -> None:
        if (name, member) not in self._cuts:
            deliver(*args)
        elif self.world.rng.random() < self.weather.late:
            self._parked.append((name, member, deliver, args))

    def duplicate_after(self, fate: Fate) -> float:
        """Return after how many seconds a request is carried out again, or infinity."""
        if fate.duplicate_after is not None:
            return fate.duplicate_after
        if self.weather.duplicate and self.world.rng.random() < self.weather.duplicate:
            return self.world.rng.random() * self.weather.latest
        return math.inf

    def is_cut(self, process: Process, member: int) -> bool:
        """Whether nothing passes between a process and a member."""
        return (process.name, member) in self._cuts

    @property
    def has_cuts(self) -> bool:
        """Whether there is any cut."""
        return bool(self._cuts)

    def cut(self, process: Process, member: int) -> None:
        """Let nothing pass between a process and a member; nobody is told."""
        self._cuts.add((process.name, member))

    def heal(self, process: Process | None = None, member: int | None = None) -> None:
        """Let everything pass again; some of what met the cut arrives now."""
        gone = {
            (name, index)
            for name, index in self._cuts
            if (process is None or process.name == name) and (member is None or member == index)
        }
        self._cuts -= gone
        parked, self._parked = self._parked, []
        for name, index, deliver, args in parked:
            self.world.after(self.delay(), self._arrive, name, index, deliver, args)

    def destine(self, process: Process, kind: str, fate: Fate) -> None:
        """Name in advance what happens to the next matching request of a kind."""
        self._fates[process.name, kind].append(fate)

    def forget_fates(self) -> None:
        """Let nothing befall the requests to come that was not met yet."""
        self._fates.clear()

    def fate(self, process: Process, kind: str, argument: Any) -> Fate:
        """Return what is destined for a request, and use it up."""
        if not self._fates:
            return _NO_FATE
        waiting = self._fates.get((process.name, kind), ())
        for fate in waiting:
            if fate.matching(argument):
                self._fates[process.name, kind].remove(fate)
                self.world.note(process.name, kind, "meets its fate:", fate)
                return fate
        return _NO_FATE
