"""`exec -- CMD`: a program that runs only while this candidate leads.

The guard process (`sidecar.guard_process`) kills it at its deadline, whatever becomes of us; here
is decided when it starts, until when it may live, and when it is asked to go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from sidecar.core.state import ElectionState, Role
from sidecar.election.background import Background
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import Clock
from sidecar.guard import Guard, GuardHandle, GuardLost, LaunchFailed

log = logging.getLogger(__name__)

_GUARD_PATIENCE = 1.0


class Program:
    """Runs one command in the terms of one candidate, one term after the other.

    Args:
        argv: the command.
        handle: a guard that was started before.
        on_end: called when the command has ended by itself, or cannot be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        handle: GuardHandle,
        feed: Feed[ElectionState],
        clock: Clock,
        *,
        on_end: Callable[[], None],
    ) -> None:
        self.exit_code: int | None = None
        self._argv = tuple(argv)
        self._handle = handle
        self._guard: Guard | None = None
        self._news = News(feed, clock)
        self._clock = clock
        self._on_end = on_end
        self._token = 0
        self._deadline = float("-inf")
        self._is_told_to_go = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self) -> None:
        """Follow the candidate until cancelled; the command is gone afterwards."""
        async with Guard(self._handle) as guard, Background() as tasks:
            self._guard = guard
            await guard.ready()
            while True:
                state = self._news.look()
                if state.role is Role.LEADER and self._idle.is_set() and self.exit_code is None:
                    await self._start(guard, state, tasks)
                elif state.role is Role.LEADER and state.token == self._token:
                    self._extend(guard, state)
                else:
                    self._ask_to_go(guard)
                await self._news.wait()

    async def settle(self) -> None:
        """Wait until no process of the command lives; called after the state says follower."""
        if self._guard is None:
            return
        self._ask_to_go(self._guard)
        try:
            async with asyncio.timeout(max(self._deadline - self._clock.now(), 0)):
                await self._idle.wait()
        except TimeoutError:
            # The guard has not done its duty, so it is frozen or worse. Its group we can kill
            # ourselves; what has left the group as well is a case for the token.
            log.warning("guard is silent, killing the program token=%d", self._token)
            self._guard.kill()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GUARD_PATIENCE):
                    await self._idle.wait()

    def signal(self, number: int) -> None:
        """Hand a signal on to the command, where it runs."""
        if self._guard is not None and not self._idle.is_set():
            self._guard.signal(number)

    async def _start(self, guard: Guard, state: ElectionState, tasks: Background) -> None:
        self._token, self._deadline = state.token, state.deadline
        self._is_told_to_go = False
        self._idle.clear()
        env = {
            "LEADER_SIDECAR_LEADER_ID": state.id,
            "LEADER_SIDECAR_TOKEN": str(state.token),
            "LEADER_SIDECAR_KEY": state.key,
            "LEADER_SIDECAR_ELECTION_NAME": state.election,
        }
        try:
            pid = await guard.launch(self._argv, env, state.deadline)
        except LaunchFailed as exc:
            self._idle.set()
            if self._clock.now() < state.deadline:
                log.warning("program not started error=%s", exc)
                self._end(exc.exit_code)
            return
        log.info("program started pid=%d token=%d", pid, state.token)
        tasks.start(self._await_end(guard), name="program-end")

    async def _await_end(self, guard: Guard) -> None:
        try:
            code = await guard.exited()
            log.info("program ended code=%d token=%d", code, self._token)
            await guard.reaped()
        except GuardLost as exc:
            # Its group was killed with it; what left the group dies at the deadline at the latest
            # only if it looks at it, so wait until then: nobody else may lead before.
            log.warning("guard lost error=%s", exc)
            self._end(1)
            await asyncio.sleep(max(self._deadline - self._clock.now(), 0))
        else:
            # At its deadline the guard has killed it: that is a step-down, no end of its own.
            if not self._is_told_to_go and self._clock.now() < self._deadline:
                self._end(code)
        self._idle.set()

    def _extend(self, guard: Guard, state: ElectionState) -> None:
        if state.deadline > self._deadline:
            self._deadline = state.deadline
            guard.extend(state.deadline)

    def _ask_to_go(self, guard: Guard) -> None:
        if not self._idle.is_set() and not self._is_told_to_go:
            self._is_told_to_go = True
            guard.terminate()

    def _end(self, code: int) -> None:
        self.exit_code = code
        self._on_end()
