"""Simulated processes in virtual time: each has an event loop and a clock of its own.

A `World` owns true time. It goes from one instant to the next: the earliest of its events (a
message arrives, a lease ends) and of the processes' next timers. At that instant the process
concerned runs its loop until nothing is ready; nothing else runs, and no time passes meanwhile.

What is as in a real process (`sim_loop` has the loop's part):

* Its clock runs at a rate of its own. `Process.boottime` counts while suspended, the loop's
  `time()` does not, and the two differ from the beginning, so that mixing them shows.
* A crash runs no `finally` and no `__aexit__`.

Everything random comes from one `random.Random(seed)`, and nothing depends on the order of hashes
(tasks hash to their number, as `TaskGroup` keeps them in a set): the same seed gives the same
run, which `World.digest` tells.
"""

import asyncio
import gc
import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tests.support.sim_loop import SimLoop, SimulationError, close_silently, running

T = TypeVar("T")

SLEPT_BEFORE = 777.0
"""Seconds a machine was suspended before the simulation: what boot time has over loop time."""

_WALL_AT_BOOT = 1_790_000_000.0
_STEPS_PER_COLLECTION = 50_000

Main = Callable[["Process"], Coroutine[Any, Any, object]]


class Process:
    """A simulated process: started, frozen, suspended, crashed and restarted from outside.

    It implements the election's `Clock` port: `now()` is its own boot time.

    Attributes:
        rate: seconds of its clock per second of true time.
        offset: what its boot time showed at true time 0.
        lives: how often it was started.
        main: the running main task, or None.
    """

    def __init__(self, world: "World", name: str, rate: float, offset: float) -> None:
        self.world = world
        self.name = name
        self.rate = rate
        self.offset = offset
        self.lives = 0
        self.is_frozen = False
        self.next_step = math.inf
        self.main: asyncio.Task[Any] | None = None
        self.loop = SimLoop(self._failed)
        self.loop.abandon()
        self._slept = SLEPT_BEFORE
        self._asleep_since: float | None = None
        self._main: Main | None = None
        self._dead: list[tuple[SimLoop, list[asyncio.Task[Any]]]] = []
        self._failures: list[dict[str, Any]] = []

    def __repr__(self) -> str:
        return f"<process {self.name}>"

    @property
    def is_alive(self) -> bool:
        """Whether it was started and has neither crashed nor finished."""
        return self.main is not None and not self.main.done()

    def now(self) -> float:
        """Return its CLOCK_BOOTTIME, in seconds (the clock port; right at any true time)."""
        return self.rate * self.world.now + self.offset

    def wall(self) -> float:
        """Return its wall clock, in seconds since 1970 (the clock port)."""
        return _WALL_AT_BOOT + self.now()

    def true_time(self, boottime: float) -> float:
        """Return the true time at which its boot time shows `boottime`."""
        return (boottime - self.offset) / self.rate

    def start(self, main: Main) -> None:
        """Begin a life with `main(process)` as its main task, at this instant.

        Raises:
            RuntimeError: it is alive already.
        """
        if self.is_alive:
            raise RuntimeError(f"{self.name} is alive already")
        self.loop.abandon()
        self.loop.close()
        self._main = main
        self.lives += 1
        self.is_frozen = False
        self.loop = SimLoop(self._failed)
        self.loop.instant = self.now() - self._slept
        self.main = self.loop.create_task(main(self), name=f"{self.name} main")
        self.main.add_done_callback(self._ended)
        self.world.note(self.name, "starts, life", self.lives)
        self.step()

    def restart(self) -> None:
        """Crash it where it is alive, and start the same main again."""
        if self.is_alive:
            self.crash()
        assert self._main is not None, "never started"
        self.start(self._main)

    def spawn(self, coro: Coroutine[Any, Any, T], name: str = "spawned") -> "asyncio.Task[T]":
        """Run a coroutine beside the main task, as a signal handler or a request would."""
        task: asyncio.Task[T] = self.loop.create_task(coro, name=f"{self.name} {name}")
        self.step()
        return task

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Hand it input: `callback(*args)` runs in it, now or when it thaws."""
        if self.loop.is_abandoned:
            return
        self.loop.receive(callback, args)
        if not self.is_frozen:
            self.step()

    def stop(self) -> None:
        """Cancel the main task, as `asyncio.Runner` does on a signal."""
        if self.main is not None:
            self.call(self.main.cancel)

    def step(self) -> None:
        """Run it at this instant until nothing is ready (nothing happens while it is frozen)."""
        world, loop = self.world, self.loop
        if self.is_frozen or loop.is_abandoned or asyncio._get_running_loop() is loop:
            return
        loop.instant = max(loop.instant, self.rate * world.now + self.offset - self._slept)
        world.before_step(self)
        spinning = loop.turn()
        if spinning:
            self._failed({"message": f"it spins: no end at this instant of {spinning}"})
        if self._failures:
            self._raise()
        world.after_step(self)
        self._plan()

    def _plan(self) -> None:
        timer = self.loop.next_timer()
        if timer == math.inf or self.is_frozen or self.loop.is_abandoned:
            self.next_step = math.inf
        else:
            self.next_step = (timer + self._slept - self.offset) / self.rate

    def wake(self) -> None:
        """Step it for its next timer, which is due at this instant whatever rounding says."""
        self.loop.instant = max(self.loop.instant, self.loop.next_timer())
        self.step()

    def freeze(self) -> None:
        """Stop it where it is, as SIGSTOP does; inside its own code: after the running callback."""
        self.world.note(self.name, "freezes")
        self.is_frozen = self.loop.is_halted = True
        self.next_step = math.inf

    def suspend(self) -> None:
        """Stop it with its machine: its loop's clock stands still too, boot time goes on."""
        self.freeze()
        self._asleep_since = self.now()

    def thaw(self) -> None:
        """Let it go on: what was under way, then the input that came, then overdue timers."""
        if not self.is_frozen or self.loop.is_abandoned:
            return
        if self._asleep_since is not None:
            self._slept += self.now() - self._asleep_since
            self._asleep_since = None
        self.world.note(self.name, "thaws")
        self.is_frozen = self.loop.is_halted = False
        self.step()

    def crash(self) -> None:
        """End it where it is, as SIGKILL does: nothing of it runs any more."""
        self.world.note(self.name, "crashes")
        self.world.on_crash(self)
        self._dead.append((self.loop, list(asyncio.all_tasks(self.loop))))
        self.loop.abandon()
        self.is_frozen = False
        self._asleep_since = None
        self.next_step = math.inf
        self.main = None

    def bury(self) -> None:
        """Close what crashes left behind, without a word from the interpreter.

        Only now do the `finally` blocks of the dead run, into loops that run nothing: call it
        when the history has been judged.
        """
        self.world.on_crash = _nothing
        if not self.loop.is_abandoned:
            self.crash()
        for loop, tasks in self._dead:
            with running(loop):
                for task in tasks:
                    close_silently(task)
            loop.close()
        self._dead.clear()
        self.loop.close()

    def _ended(self, main: asyncio.Task[Any]) -> None:
        self.world.note(self.name, "main task ended")
        if not main.cancelled() and main.exception() is not None:
            self._failed({"message": "the main task failed", "exception": main.exception()})

    def _failed(self, context: dict[str, Any]) -> None:
        self._failures.append(context)

    def _raise(self) -> None:
        context = self._failures.pop(0)
        cause = context.get("exception")
        text = f"{self.name} at {self.world.now:.6f}: {context.get('message')}: {cause!r}"
        raise SimulationError(f"{text}\n{self.world.story()}") from cause


class World:
    """True time, the events in it, and the processes that live in it."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now = 0.0
        self.rng = random.Random(seed)
        self.digest = seed
        self.steps = 0
        self.processes: list[Process] = []
        self.before_step: Callable[[Process], None] = _nothing
        self.after_step: Callable[[Process], None] = _nothing
        self.on_crash: Callable[[Process], None] = _nothing
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0
        self._trace: deque[tuple[Any, ...]] = deque(maxlen=400)

    def process(self, name: str, *, rate: float = 1.0, offset: float = 0.0) -> Process:
        """Add a process, not started; its boot time is rate x true time + offset."""
        process = Process(self, name, rate, offset)
        self.processes.append(process)
        return process

    def at(self, when: float, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` at a true time; what is past happens at this instant."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, callback, args))

    def after(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Call `callback(*args)` after so many true seconds."""
        self.at(self.now + seconds, callback, *args)

    def run(self, seconds: float) -> None:
        """Let true time pass."""
        self.run_until(lambda: False, self.now + seconds)

    def run_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Let time pass until the condition holds or true time is `limit`; tell whether it holds.

        The condition is looked at after each instant.
        """
        with _collecting_by_hand():
            while not condition():
                if not self._next_instant(limit):
                    self.now = max(self.now, limit)
                    return condition()
        return True

    def complete(self, process: Process, coro: Coroutine[Any, Any, T], limit: float = 3600.0) -> T:
        """Run a coroutine in the process to its end and return what it returns.

        Raises:
            SimulationError: it has not ended after `limit` true seconds.
        """
        task = process.spawn(coro)
        if not self.run_until(task.done, self.now + limit):
            raise SimulationError(f"still waiting after {limit} s\n{self.story()}")
        return task.result()

    def _next_instant(self, limit: float) -> bool:
        first: Process | None = None
        when = math.inf
        for process in self.processes:
            if process.next_step < when:
                first, when = process, process.next_step
        events = self._events
        if events and events[0][0] <= when:  # input comes before timers
            if events[0][0] > limit:
                return False
            self.now, number, callback, args = heapq.heappop(events)
            self._count_step(number)
            callback(*args)
        elif first is None or when > limit:
            return False
        else:
            self.now = max(self.now, when)
            self._count_step(-1)
            first.wake()
        return True

    def _count_step(self, number: int) -> None:
        self.digest = hash((self.digest, self.now, number))
        self.steps += 1
        if self.steps % _STEPS_PER_COLLECTION == 0:
            gc.collect(1)

    def note(self, who: str, *what: object) -> None:
        """Add a line to the trace; it is formatted only when somebody reads it."""
        self._trace.append((self.now, who, *what))

    def story(self, lines: int = 40) -> str:
        """Return the last lines of the trace, and the seed that replays it."""
        last = list(self._trace)[-lines:]
        told = (f"{when:14.6f}  {who:<8} {' '.join(map(str, what))}" for when, who, *what in last)
        return "\n".join((f"seed {self.seed}, the last {len(last)} of the trace:", *told))

    def close(self) -> None:
        """Bury every process; call it when the history has been judged."""
        for process in self.processes:
            process.bury()
        self._events.clear()


def _nothing(process: Process) -> None:
    pass


@contextmanager
def _collecting_by_hand() -> Iterator[None]:
    """Keep the garbage collector, and with it finalizers, to fixed points of the simulation."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
