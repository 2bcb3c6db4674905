"""The demo without a terminal: each disturbance once, one line per step, judged at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sidecar.demo.ledger import Interval, View
from sidecar.demo.web import NoAnswer
from sidecar.demo.world import PromiseBroken, World

SLOW_MACHINE = 5.0
"""Seconds by which a bound may be missed: the demo judges the product, not the machine."""

_SETTLED_WITHIN = 60.0
_PAUSED_FOR = 2.0
_WITHOUT_ETCD = 1.0  # seconds for which we watch that nobody acts
_RESTARTS = 3
_AFTER_CRASH = 1.0  # seconds beside the TTL


class Script:
    """All steps in one order."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self._world = world
        self._say = say
        self._step = ""

    async def run(self) -> bool:
        """Do all steps; say what was broken and return False if anything was."""
        steps: dict[str, Callable[[], Awaitable[str]]] = {
            "start": self._start,
            "kill": self._kill,
            "restart": self._restart,
            "handover": self._handover,
            "freeze": self._freeze,
            "etcd": self._etcd,
            "pause": self._pause,
            "judge": self._judge,
        }
        for name, step in steps.items():
            try:
                self._say(f"{name:<9} {await step()}")
                self._check()
            except (PromiseBroken, NoAnswer) as exc:
                self._say(f"{name:<9} BROKEN: {exc}")
                return False
        self._say("all as promised")
        return True

    async def _start(self) -> str:
        world = self._world
        await self._settle()
        leader = self._leader()
        return (
            f"etcd {world.etcd.version} and three sidecars run, TTL {world.ttl:g} s; "
            f"{leader.id} leads, token {leader.token}"
        )

    async def _kill(self) -> str:
        world, old = self._world, self._leader()
        killed_at = world.clock.now()
        await world.candidates[old.id].child.kill()
        new, took = await self._failover(old, killed_at, "killed")
        await self._sleep_until(killed_at + world.ttl + 2)
        world.candidates[old.id].child.start()
        await self._settle()
        return (
            f"{old.id} killed by SIGKILL, started again {world.ttl + 2:g} s later; "
            f"{new.id} leads {took:.0f} ms after the kill; {_tokens(old, new)}; {_nobody(new.gap)}"
        )

    async def _restart(self) -> str:
        for _ in range(_RESTARTS):
            text = await self._restart_once(self._leader())
            if text:
                return text
        raise PromiseBroken(
            "who restarts at once resumes its term, but another one led "
            f"{_RESTARTS} times in {_RESTARTS}"
        )

    async def _restart_once(self, old: View) -> str:
        """Return what happened, "" if another one leads: the machine took a lease's time."""
        world = self._world
        killed_at, before = world.clock.now(), len(world.ledger.intervals)
        child = world.candidates[old.id].child
        await child.kill()
        child.start()
        await world.until(
            lambda: self._is_back(old) or world.interval_after(old.token),
            world.ttl + SLOW_MACHINE,
            f"{old.id}, killed and started again at once, goes on",
        )
        took = (world.clock.now() - killed_at) * 1000
        await self._settle()
        if world.interval_after(old.token) is not None:
            return ""
        # No break at all, unless it came back between its deadline and its lease's end.
        gap = sum(interval.gap for interval in world.ledger.intervals[before:])
        return (
            f"{old.id} killed and started again at once; resumed its term after {took:.0f} ms, "
            f"token still {old.token}: no leader change; {_nobody(gap)}"
        )

    def _is_back(self, old: View) -> bool:
        view = self._world.views[old.id]
        return view.leads and view.token == old.token and view.reason == "resumed"

    async def _handover(self) -> str:
        world, old = self._world, self._leader()
        await world.handover()
        new = await self._next(old, SLOW_MACHINE, "handed over, somebody else leads")
        if new.gap >= world.ttl:
            raise PromiseBroken(f"a handover waits for no lease, but {_nobody(new.gap)}")
        await self._settle()
        return f"{old.id} handed over to {new.id}; {_tokens(old, new)}; {_nobody(new.gap)}"

    async def _freeze(self) -> str:
        world, old = self._world, self._leader()
        child = world.candidates[old.id].child
        frozen_at = world.clock.now()
        child.freeze()
        new, took = await self._failover(old, frozen_at, "frozen")
        await self._sleep_until(frozen_at + 2 * world.ttl)
        child.thaw()
        if await world.says_leader(old.id):
            raise PromiseBroken(f"{old.id} was frozen beyond its lease and woke up as leader")
        await self._settle()
        return (
            f"{old.id} frozen for {2 * world.ttl:g} s; {new.id} leads after {took:.0f} ms; woken, "
            f"{old.id} does not act (/leader says 503); {_tokens(old, new)}; {_nobody(new.gap)}"
        )

    async def _etcd(self) -> str:
        world, old = self._world, self._leader()
        before = len(world.ledger.intervals)
        await world.etcd.stop()
        await world.until(
            lambda: world.leader() is None,
            world.ttl + SLOW_MACHINE,
            "without etcd, the leader stops acting within its TTL",
        )
        suspended_at = world.clock.now()
        await self._sleep_until(suspended_at + _WITHOUT_ETCD)
        if len(world.ledger.intervals) > before:
            raise PromiseBroken("nobody begins to act without etcd, but somebody did")
        await world.etcd.start()
        started_at = world.clock.now()
        await world.until(
            lambda: len(world.ledger.intervals) > before,
            # etcd leads itself at once, and grants every lease anew.
            world.ttl + 4 + SLOW_MACHINE,
            "somebody leads again within TTL + 4 s after etcd is back",
        )
        new = world.ledger.intervals[before]
        took = max(0.0, new.start - started_at) * 1000
        await self._settle()
        if new.token == old.token:
            who = f"{new.id} goes on in the same term, token {new.token}"
        else:
            who = f"{new.id} leads; {_tokens(old, new)}"
        return (
            f"etcd stopped until {old.id} was suspended and {_WITHOUT_ETCD:g} s longer; back, "
            f"{who}, {took:.0f} ms after etcd was healthy; {_nobody(new.gap)}"
        )

    async def _pause(self) -> str:
        world, old = self._world, self._leader()
        await world.pause()
        await world.until(
            lambda: world.leader() is None, SLOW_MACHINE, "paused, the leader steps down"
        )
        before = len(world.ledger.intervals)
        await self._sleep_until(world.clock.now() + _PAUSED_FOR)
        if len(world.ledger.intervals) > before:
            raise PromiseBroken("nobody acts in a pause, but somebody did")
        resumed_at = world.clock.now()
        await world.resume()
        new = await self._next(old, SLOW_MACHINE, "resumed, somebody leads")
        took = (new.start - resumed_at) * 1000
        await self._settle()
        return (
            f"paused for {_PAUSED_FOR:g} s; {new.id} leads {took:.0f} ms after `resume` was "
            f"called; {_tokens(old, new)}; {_nobody(new.gap)}, as told"
        )

    async def _judge(self) -> str:
        ledger = self._world.ledger
        terms = await self._world.check_history()
        return (
            f"{ledger.terms} terms seen, {terms} in /history; in {ledger.looks} looks at three "
            "status files never two leaders, and tokens only grew"
        )

    async def _failover(self, old: View, since: float, what: str) -> tuple[Interval, float]:
        """Wait for the next leader; return its interval and the milliseconds it took."""
        bound = self._world.ttl + _AFTER_CRASH
        promise = f"{old.id} {what}, somebody leads again within TTL + {_AFTER_CRASH:g} s"
        new = await self._next(old, bound + SLOW_MACHINE, promise)
        return new, (new.start - since) * 1000

    async def _next(self, old: View, within: float, promise: str) -> Interval:
        world = self._world
        await world.until(lambda: world.interval_after(old.token), within, promise)
        new = world.interval_after(old.token)
        assert new is not None  # noqa: S101 - just waited for
        return new

    async def _settle(self) -> None:
        await self._world.until(
            self._world.is_settled, _SETTLED_WITHIN, "somebody leads and all three stand in line"
        )

    def _leader(self) -> View:
        leader = self._world.leader()
        if leader is None:
            raise PromiseBroken("somebody leads as long as nothing disturbs, but nobody does")
        return leader

    def _check(self) -> None:
        if self._world.ledger.broken:
            raise PromiseBroken("; ".join(self._world.ledger.broken))

    async def _sleep_until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self._world.clock.now()))


def _tokens(old: View, new: Interval) -> str:
    return f"token {old.token} -> {new.token}"


def _nobody(gap: float) -> str:
    return f"nobody led for {gap * 1000:.0f} ms"
