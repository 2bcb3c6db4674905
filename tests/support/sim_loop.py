"""The event loop of one simulated process: it never blocks, does no I/O, and is told the time.

What is as in a real loop: an iteration reads its input first, then collects the timers that are
due, then runs both in this order. So after a freeze the input that came meanwhile is handled
*before* overdue timers; and a halted loop goes on exactly where it stopped.
"""

import asyncio
import contextvars
import heapq
import logging
import math
import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")

_MOST_ITERATIONS = 10_000
_MOST_CLOSES = 100
_DUE = 1e-9  # seconds; a timer this close is due, as loops allow for their clock's resolution


class SimulationError(AssertionError):
    """A simulated process failed, or the simulation cannot go on."""


class SimTask(asyncio.Task[Any]):
    """A task that hashes to its number, so that sets of tasks have the same order in each run."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number  # first: the constructor below already asks for the hash
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.BaseEventLoop):
    """The event loop of one life of a simulated process; it never blocks and does no I/O."""

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self.instant = 0.0
        self.is_abandoned = False
        self.is_halted = False
        self._report = report
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._input: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0
        self._left_of_iteration = 0

    def time(self) -> float:
        return self.instant

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.is_abandoned:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        # What a thread does is simulated as input of the process, so this is always the loop's own.
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.instant + delay, callback, *args, context=context)

    def create_task(self, coro: Any, **options: Any) -> Any:
        self._count += 1
        return SimTask(self._count, coro, loop=self, **options)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.is_abandoned:
            self._report(context)

    def receive(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Take input; the next iteration hands it to `callback`, before any timer."""
        self._input.append((callback, args))

    def next_timer(self) -> float:
        """Return when the next timer is due (loop time), or infinity."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        return timers[0][0] if timers else math.inf

    def turn(self) -> str:
        """Run iterations until nothing is ready, or the process is halted in the middle.

        Returns "", or what goes on and on when that does not end.
        """
        before = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(self._keep, self._let_go)
        try:
            for _ in range(_MOST_ITERATIONS):
                if self._left_of_iteration == 0:
                    self._begin_iteration()
                if not self._ready or self.is_halted:
                    return ""
                self._run_iteration()
        finally:
            sys.set_asyncgen_hooks(*hooks)
            asyncio._set_running_loop(before)
        return ", ".join(map(repr, self._ready))

    def _begin_iteration(self) -> None:
        ready = self._ready
        if self._input:
            for callback, args in self._input:
                ready.append(asyncio.Handle(callback, args, self, None))
            self._input.clear()
        timers = self._timers
        due = self.instant + _DUE
        while timers and timers[0][0] <= due:
            timer = heapq.heappop(timers)[2]
            if not timer._cancelled:
                ready.append(timer)
        self._left_of_iteration = len(ready)

    def _run_iteration(self) -> None:
        ready = self._ready
        while self._left_of_iteration and not self.is_halted:
            self._left_of_iteration -= 1
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _keep(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Nothing to note: whoever is abandoned is kept by `Process.bury`."""

    def _let_go(self, generator: AsyncGenerator[Any, Any]) -> None:
        if not self.is_abandoned:
            self.create_task(generator.aclose())

    def abandon(self) -> None:
        """Run nothing any more, whatever is called."""
        self.is_abandoned = self.is_halted = True
        self._ready.clear()
        self._timers.clear()
        self._input.clear()


@contextmanager
def running(loop: SimLoop) -> Iterator[None]:
    """Let clean-up that asks for the running loop find the dead one, and keep it quiet."""
    before, hook = asyncio._get_running_loop(), sys.unraisablehook
    level = logging.root.manager.disable
    asyncio._set_running_loop(loop)
    sys.unraisablehook = lambda _: None
    logging.disable()
    try:
        yield
    finally:
        logging.disable(level)
        sys.unraisablehook = hook
        asyncio._set_running_loop(before)


def close_silently(task: asyncio.Task[Any]) -> None:
    """Run the `finally` blocks of an abandoned task, so that the interpreter has no complaint."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro = task.get_coro()
    if not isinstance(coro, Coroutine):
        return
    for _ in range(_MOST_CLOSES):
        try:
            coro.close()
        except RuntimeError:  # it awaited in a finally block; close it there, too
            continue
        except Exception:  # noqa: BLE001, S110 - the dying words of the dead
            pass
        return
