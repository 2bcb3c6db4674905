"""What the keys of the live view do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from sidecar.demo.ledger import View
from sidecar.demo.story import Story
from sidecar.demo.world import Candidate, World
from sidecar.errors import SidecarError


class Actions:
    """Carries out key presses, beside each other where that makes sense."""

    def __init__(self, world: World, story: Story, group: asyncio.TaskGroup) -> None:
        self._world = world
        self._story = story
        self._group = group
        self._busy: set[str] = set()
        self.back_at: dict[str, float] = {}
        """When who was killed is started again, and who was frozen goes on."""
        self._keys: dict[str, Callable[[], None]] = {
            "k": self._kill,
            "h": self._handover,
            "z": self._freeze,
            "e": self._toggle_etcd,
            "p": self._toggle_pause,
        }

    @property
    def is_etcd_stopped(self) -> bool:
        """Whether etcd was stopped, or has ended by itself."""
        return not self._world.etcd.child.is_running

    @property
    def is_paused(self) -> bool:
        """Whether the sidecars say that the election is paused."""
        return any(view.is_paused for view in self._world.views.values())

    def press(self, key: str) -> None:
        """Begin what the key stands for; other keys do nothing."""
        action = self._keys.get(key)
        if action is not None:
            action()

    def revive(self) -> None:
        """Start a sidecar again that ended by itself, as a kubelet would."""
        for candidate in self._world.candidates.values():
            if candidate.child.is_wanted and not candidate.child.is_running:
                self._story.say(f"{candidate.id} ended by itself: {candidate.child.last_words()}")
                self._begin(self._kill_and_start(candidate))

    def _kill(self) -> None:
        leader = self._leader()
        if leader is not None:
            away = self._world.ttl + 2
            self._story.say(f"k: {leader.id} killed by SIGKILL, for {away:g} s")
            self._begin(self._kill_and_start(self._world.candidates[leader.id]))

    async def _kill_and_start(self, candidate: Candidate) -> None:
        # Down for longer than the TTL: one that comes back earlier resumes its term.
        away = self._world.ttl + 2
        self.back_at[candidate.id] = self._world.clock.now() + away
        await candidate.child.kill()
        await asyncio.sleep(away)
        del self.back_at[candidate.id]
        candidate.child.start()
        self._story.say(f"{candidate.id} started again")

    def _freeze(self) -> None:
        leader = self._leader()
        if leader is not None:
            away = 2 * self._world.ttl
            self._story.say(f"z: {leader.id} frozen by SIGSTOP, for {away:g} s")
            self._begin(self._freeze_and_thaw(self._world.candidates[leader.id], away))

    async def _freeze_and_thaw(self, candidate: Candidate, away: float) -> None:
        self.back_at[candidate.id] = self._world.clock.now() + away
        candidate.child.freeze()
        await asyncio.sleep(away)
        if candidate.child.is_frozen:  # not killed meanwhile
            del self.back_at[candidate.id]
            candidate.child.thaw()
            self._story.say(f"{candidate.id} goes on after SIGCONT")

    def _handover(self) -> None:
        if self._leader() is not None and self._has_etcd():
            self._story.say("h: the leader is asked to hand over")
            self._once("handover", self._world.handover)

    def _toggle_pause(self) -> None:
        if not self._has_etcd():
            return
        if self.is_paused:
            self._story.say("p: the election goes on")
            self._once("pause", self._world.resume)
        else:
            self._story.say("p: the election is paused")
            self._once("pause", self._world.pause)

    def _toggle_etcd(self) -> None:
        if self.is_etcd_stopped:
            self._story.say("e: etcd is started")
            self._once("etcd", self._start_etcd)
        else:
            self._story.say("e: etcd is stopped")
            self._once("etcd", self._world.etcd.stop)

    async def _start_etcd(self) -> None:
        await self._world.etcd.start()
        self._story.say("etcd answers again")

    def _leader(self) -> View | None:
        """Return who leads by the status files, if it can be disturbed; else say why not."""
        leader = self._world.leader()
        if leader is None:
            self._story.say("nobody leads at the moment")
            return None
        child = self._world.candidates[leader.id].child
        if child.is_running and not child.is_frozen:
            return leader
        what = "frozen" if child.is_frozen else "dead"
        self._story.say(f"{leader.id} is {what} already; wait for the end of its lease")
        return None

    def _has_etcd(self) -> bool:
        if self.is_etcd_stopped:
            self._story.say("etcd is stopped; press e first")
        return not self.is_etcd_stopped

    def _once(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        if name in self._busy:
            self._story.say(f"{name}: the one before is not done yet")
            return
        self._busy.add(name)

        async def act_once() -> None:
            try:
                await act()
            finally:
                self._busy.discard(name)

        self._begin(act_once())

    def _begin(self, action: Coroutine[None, None, None]) -> None:
        self._group.create_task(self._guarded(action), name="action")

    async def _guarded(self, action: Awaitable[None]) -> None:
        try:
            await action
        except SidecarError as exc:  # a refused command, an etcd that is away: part of the show
            self._story.say(str(exc))
