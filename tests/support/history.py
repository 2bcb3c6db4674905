"""What happened, in true time, and whether it was allowed to.

`History` follows three things: which key is first in the store (it listens to every revision),
who acts (it asks each candidate around every step it takes), and what outputs said. Acting is a
function of the clock, so between two steps of a process it lasts exactly to its deadline, mapped
to true time by that process's clock; an overlap of any length is found, also when a leader is
frozen with its deadline ahead.

Violations are noted with the trace that led to them. `judge` raises them, and looks for what
only shows afterwards: a time without a leader, a key that nobody knows of.
"""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from sidecar.core.store import Event
from tests.support.fake_etcd import FakeEtcd
from tests.support.sim_process import Process, World

_OUTSIDE = frozenset({"outside", "restore"})
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Acting:
    """A candidate's own word that it acts: with which token, and until when (its boot time).

    A deadline of infinity means that it does not know one: then it acts for as long as it says.
    """

    token: int
    deadline: float = math.inf


Probe = Callable[[], Acting | None]
KnownKeys = Callable[[], Collection[tuple[bytes, int]]]
"""Returns (key, token) of every key whose fate a live candidate still follows."""


@dataclass(slots=True)
class Interval:
    """A time in which somebody acts, or an output says so; `until` may still move."""

    process: Process
    what: str
    token: int
    start: float
    until: float

    def __str__(self) -> str:
        span = f"[{self.start:.6f}, {self.until:.6f})"
        return f"{self.process.name} {self.what} {span} with token {self.token}"


@dataclass(slots=True)
class _Actor:
    process: Process
    probe: Probe
    known_keys: KnownKeys
    current: Interval | None = None


class JudgementError(AssertionError):
    """The history broke a promise; the message holds all of it and how to replay it."""


class History:
    """Records one simulation and judges it. One election, named by its candidates' prefix.

    Attributes:
        intervals: the times in which somebody acted, as far as they are over.
        terms: how many different tokens acted.
        violations: promises broken so far, each with the trace up to it.
        excused_for: seconds a term may outlast the deletion of its key from outside.
        foreign: keys of others than the simulated candidates.
    """

    def __init__(
        self, world: World, etcd: FakeEtcd, prefix: bytes, *, excused_for: float = 5.0
    ) -> None:
        self.world = world
        self.etcd = etcd
        self.prefix = prefix
        self.intervals: list[Interval] = []
        self.terms = 0
        self.violations: list[str] = []
        self.excused_for = excused_for
        self.foreign: set[bytes] = set()
        self._actors: dict[str, _Actor] = {}
        self._said: dict[tuple[str, str], Interval] = {}
        self._queue: dict[bytes, int] = {}
        self._gone_outside: dict[int, float] = {}
        self._largest = 0
        self._largest_of = ""
        self._troubles: list[tuple[float, int]] = []
        world.before_step = self._before_step
        world.after_step = self._after_step
        world.on_crash = self._crashed
        etcd.listeners.append(self._committed)

    # What is recorded

    def attach(self, process: Process, probe: Probe, known_keys: KnownKeys = frozenset) -> None:
        """Follow a candidate in this life of a process; a new life attaches its own."""
        self._actors[process.name] = _Actor(process, probe, known_keys)

    def said(self, process: Process, output: str, token: int, valid_until: float) -> None:
        """Note that an output says *leader* until `valid_until` (the process's boot time)."""
        until = process.true_time(valid_until)
        said = Interval(process, f"says leader in {output}", token, self.world.now, until)
        before = self._said.get((process.name, output))
        self._said[process.name, output] = said
        if before is None or before.token != token:  # a renewal is no news
            self.world.note(process.name, said)
        if until > self.world.now:
            self._check_term(said)

    def unsaid(self, process: Process, output: str) -> None:
        """Note that an output says *follower*, or is gone."""
        if self._said.pop((process.name, output), None) is not None:
            self.world.note(process.name, output, "says leader no more")

    def trouble(self, what: str) -> None:
        """Note a fault of a moment; from here on the time without a leader counts anew."""
        self.trouble_begins(what)
        self.trouble_ends(what)

    def trouble_begins(self, what: str) -> None:
        """Note a fault that lasts; while it does, nobody needs to lead."""
        self.world.note("fault", what)
        self._troubles.append((self.world.now, 1))

    def trouble_ends(self, what: str) -> None:
        """Note the end of a fault."""
        self.world.note("fault", what, "ends")
        self._troubles.append((self.world.now, -1))

    def reset_tokens(self) -> None:
        """Accept smaller tokens from here on, as `--accept-token-reset` does."""
        self._largest = 0

    # What is checked as it happens

    def _before_step(self, process: Process) -> None:
        """Ask as a request does that is the first thing the process reads.

        Between steps only time has passed, so the answer can differ from what is known only
        when it should have ended by itself.
        """
        actor = self._actors.get(process.name)
        if actor is not None and actor.current is not None:
            current = actor.current
            if current.until <= self.world.now or current.until == math.inf:
                self._sample(actor)

    def _after_step(self, process: Process) -> None:
        actor = self._actors.get(process.name)
        if actor is not None:
            self._sample(actor)

    def _sample(self, actor: _Actor) -> None:
        acting = actor.probe()
        current = actor.current
        if acting is None:
            if current is not None:
                self._close(actor)
            return
        now = self.world.now
        until = actor.process.true_time(acting.deadline)
        if until < now - _ROUNDING:
            self._violation(f"{actor.process.name} acts {now - until:.6f} s past its own deadline")
        if current is None or current.token != acting.token or current.until <= now:
            self._close(actor)
            actor.current = Interval(actor.process, "acts", acting.token, now, until)
            self._begins(actor.current)
        else:
            current.until = until
        if len(self._actors) > 1:
            self._check_rivals(actor)

    def _begins(self, interval: Interval) -> None:
        self.world.note(
            interval.process.name, "acts, token", interval.token, "until", f"{interval.until:.6f}"
        )
        name, largest = interval.process.name, self._largest
        if interval.token < largest or (interval.token == largest and name != self._largest_of):
            self._violation(f"{interval} after {self._largest_of} has acted with token {largest}")
        if interval.token > largest:
            self._largest, self._largest_of = interval.token, name
            self.terms += 1
        self._check_term(interval)

    def _check_term(self, interval: Interval) -> None:
        """What says *leader* needs its key first in the store at that moment."""
        first = self.first()
        if first is not None and first[1] == interval.token:
            return
        if not self._is_excused(interval.token):
            self._violation(f"{interval} while first in the store is {first}")

    def _check_rivals(self, actor: _Actor) -> None:
        """Nobody else may act at an instant at which this one does."""
        for name, rival in self._actors.items():
            claim = rival.current
            if claim is None or rival is actor or not self._acts_now(rival, claim):
                continue
            if not (self._is_excused(claim.token) or self._is_excused(_token(actor))):
                self._violation(f"two leaders: {actor.current} and {name}: {claim}")
        for (name, _), said in self._said.items():
            is_live = name != actor.process.name and said.until > self.world.now
            if is_live and not (self._is_excused(said.token) or self._is_excused(_token(actor))):
                self._violation(f"two leaders: {actor.current} and {said}")

    def _acts_now(self, actor: _Actor, claim: Interval) -> bool:
        if actor.process.is_frozen:  # on thaw it goes on acting, if its deadline allows
            return self.world.now < claim.until < math.inf
        return actor.probe() is not None

    def _is_excused(self, token: int) -> bool:
        return self.world.now <= self._gone_outside.get(token, -math.inf) + self.excused_for

    def _close(self, actor: _Actor) -> None:
        current, actor.current = actor.current, None
        if current is not None:
            current.until = min(current.until, self.world.now)
            self.world.note(actor.process.name, f"acts no more, since {current.until:.6f}")
            self.intervals.append(current)

    def _crashed(self, process: Process) -> None:
        actor = self._actors.pop(process.name, None)
        if actor is not None:
            self._close(actor)

    # What the store says

    def first(self) -> tuple[bytes, int] | None:
        """Return key and token of who is first in the store."""
        return next(iter(self._queue.items()), None)

    def _committed(self, revision: int, events: tuple[Event, ...], cause: str) -> None:
        before = dict(self._queue)
        if cause == "restore":
            kvs = self.etcd.read(self.prefix, _prefix_end(self.prefix)).kvs
            ordered = sorted(kvs, key=lambda kv: kv.create_revision)
            self._queue = {kv.key: kv.create_revision for kv in ordered}
            # A key may live on and not be the first any more, before one that is back.
            self._gone_outside |= dict.fromkeys(before.values(), self.world.now)
        for event in events:
            if event.kv.key.startswith(self.prefix):
                if event.deleted:
                    self._queue.pop(event.kv.key, None)
                else:
                    self._queue.setdefault(event.kv.key, event.kv.create_revision)
        for key, token in before.items():
            if self._queue.get(key) != token:
                self._term_ended(token, cause)

    def _term_ended(self, token: int, cause: str) -> None:
        """A key is gone: nobody may act on it any more, nor say so, now or later."""
        if cause in _OUTSIDE:
            self._gone_outside[token] = self.world.now
            return
        claims = [actor.current for actor in self._actors.values() if self._still_acts(actor)]
        claims += self._said.values()
        for claim in claims:
            if claim is not None and claim.token == token and claim.until > self.world.now:
                self._violation(f"{claim}, and the key is gone ({cause})")

    def _still_acts(self, actor: _Actor) -> bool:
        return actor.current is not None and self._acts_now(actor, actor.current)

    def _violation(self, what: str) -> None:
        self.world.note("JUDGE", what)
        if len(self.violations) < 5:
            self.violations.append(f"at {self.world.now:.6f}: {what}\n{self.world.story()}")

    # What only shows afterwards

    def judge(self, *, led_within: float | None = None, is_settled: bool = False) -> None:
        """Raise everything that broke a promise.

        Args:
            led_within: seconds without trouble and without a leader that are too many.
            is_settled: nothing is under way any more, so every key must be known to somebody.

        Raises:
            JudgementError: with the trace up to the first violation, and the seed.
        """
        found = [*self.violations]
        if led_within is not None:
            found += [
                f"nobody led in [{start:.6f}, {end:.6f}), {end - start:.6f} s\n{self.world.story()}"
                for start, end in self.leaderless()
                if end - start > led_within + _ROUNDING
            ]
        if is_settled:
            found += [f"{key!r} is known to nobody\n{self.world.story()}" for key in self.zombies()]
        if found:
            raise JudgementError("\n\n".join(found[:3]))

    def zombies(self) -> list[bytes]:
        """Return the keys in the queue that no live candidate knows of."""
        alive = [actor for actor in self._actors.values() if actor.process.is_alive]
        known = {key for actor in alive for key in actor.known_keys()}
        queue = self._queue.items()
        return [
            key for key, token in queue if (key, token) not in known and key not in self.foreign
        ]

    def leaderless(self) -> Iterator[tuple[float, float]]:
        """Yield the quiet times, without trouble, in which nobody led."""
        led = self._led()
        for quiet_from, quiet_until in self._quiet():
            at = quiet_from
            for start, until in led:
                if until <= at:
                    continue
                if start >= quiet_until:
                    break
                if start > at:
                    yield at, start
                at = max(at, until)
            if at < quiet_until:
                yield at, quiet_until

    def led_for(self) -> float:
        """Return for how many seconds somebody acted."""
        return sum(until - start for start, until in self._led())

    def all_intervals(self) -> list[Interval]:
        """Return the times in which somebody acted, with those that go on."""
        open_ones = [actor.current for actor in self._actors.values() if actor.current is not None]
        return [*self.intervals, *open_ones]

    def _led(self) -> list[tuple[float, float]]:
        now = self.world.now
        return sorted((one.start, min(one.until, now)) for one in self.all_intervals())

    def _quiet(self) -> Iterator[tuple[float, float]]:
        depth, since = 0, 0.0
        for when, change in self._troubles:
            if depth == 0 and when > since:
                yield since, when
            depth += change
            since = when
        if depth == 0 and self.world.now > since:
            yield since, self.world.now


def _token(actor: _Actor) -> int:
    return actor.current.token if actor.current is not None else 0


def _prefix_end(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])
