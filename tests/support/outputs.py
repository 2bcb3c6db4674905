"""States to publish, and a status directory whose steps can be watched, held and failed."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Reason, Role
from sidecar.outputs.status_dir import StatusDirectory

T = TypeVar("T")
PATIENCE = 60.0  # seconds; a bound for a slow machine, not an expectation
LONG = 600.0  # seconds; a lease that no test sees the end of

ELECTION = "/resources/election"
FOLLOWER = ElectionState(
    election=ELECTION,
    id="master-0",
    leader=Leader("master-1", "10.0.0.8:9090", 8100, f"{ELECTION}/1"),
    since=1_800_000_000.512,
    transitions=3,
    candidates=("master-1", "master-0"),
    reason=Reason.WAITING,
    link=Link.CONNECTED,
    is_registered=True,
)


def leading(deadline: float, token: int = 8123) -> ElectionState:
    """Return a leader's state with this deadline."""
    key = f"{ELECTION}/694d7f2a"
    return replace(
        FOLLOWER,
        role=Role.LEADER,
        token=token,
        key=key,
        deadline=deadline,
        leader=Leader("master-0", "10.0.0.7:9090", token, key),
        transitions=4,
        candidates=("master-0", "master-1"),
        reason=Reason.ELECTED,
    )


def stepped_down(state: ElectionState, reason: Reason = Reason.SHUTDOWN) -> ElectionState:
    """Return the state right after a step-down, the key not given up yet."""
    return replace(state, role=Role.FOLLOWER, token=0, key="", deadline=NEVER, reason=reason)


async def until(condition: Callable[[], T], what: str, within: float = PATIENCE) -> T:
    """Return the first true value of the condition, without blocking the loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last seen: {value!r}")
        await asyncio.sleep(0.005)
    return value


class SetClock:
    """Shows what it is set to."""

    def __init__(self, now: float = 1000.0, wall: float = 1_800_000_000.0) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall += seconds


class Hold:
    """A step that waits in the writer's thread until it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._gone_on = threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        if not self._gone_on.wait(PATIENCE):
            raise AssertionError("nobody let the held step go")

    def let_go(self) -> None:
        self._gone_on.set()


class WatchedDirectory:
    """A status directory with a lever before and after each step of the writer.

    Steps: "remove NAME", "replace NAME", "rename NAME" (after the writer has asked whether it is
    still meant), "touch NAME"; "done" follows each of them.
    """

    def __init__(self, directory: StatusDirectory) -> None:
        self.directory = directory
        self.steps: list[str] = []
        self.landed: list[bytes] = []
        self.at: dict[str, Callable[[], None]] = {}
        self.between: Callable[[], None] = lambda: None

    def claimed_until(self) -> float:
        return self.directory.claimed_until()

    def replace(self, name: str, content: bytes, *, is_meant: Callable[[], bool]) -> bool:
        def asked_and_held() -> bool:
            meant = is_meant()
            if meant:
                self._step(f"rename {name}")
            return meant

        self._step(f"replace {name}")
        done = self.directory.replace(name, content, is_meant=asked_and_held)
        if done:
            self.landed.append(content)
        self.between()
        return done

    def remove(self, name: str) -> None:
        self._step(f"remove {name}")
        self.directory.remove(name)
        self.between()

    def touch(self, name: str) -> None:
        self._step(f"touch {name}")
        self.directory.touch(name)
        self.between()

    def _step(self, step: str) -> None:
        self.steps.append(step)
        self.at.get(step, lambda: None)()

    @contextmanager
    def held(self, step: str) -> Iterator[Hold]:
        """Hold the thread at this step until the block ends."""
        hold = Hold()
        self.at[step] = hold
        try:
            yield hold
        finally:
            self.at.pop(step, None)
            hold.let_go()
