"""The three steps by which one sees what this system does, done and judged without a person."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import httpx

from crawler import keys
from crawler.local_world import ELECTION, MasterPair, PromiseBroken, World, candidates
from crawler.records import Results
from sidecar import boottime
from sidecar.core.codec import decode_proposal
from sidecar.core.store import KeyValue
from sidecar.election import Coordinator

SLOW_MACHINE = 30.0
"""Seconds by which a bound may be missed: this judges the program, not the machine."""

_RESOURCE = "openapi"
_CALL = 20.0


class Script:
    """All steps in one order."""

    def __init__(self, world: World, etcd: Coordinator, say: Callable[[str], None]) -> None:
        self._world = world
        self._etcd = etcd
        self._say = say

    async def run(self) -> bool:
        """Do all steps; say what was broken and return False if anything was."""
        steps: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("1. start Master 2", self._first),
            ("2. start Master 3", self._second),
            ("   add a resource through Master 3, which follows", self._add),
            ("3. stop Master 2", self._stop),
        )
        for name, step in steps:
            self._say(name)
            is_broken = False
            try:
                await step()
            except* (PromiseBroken, httpx.HTTPError) as group:
                for exc in group.exceptions:
                    self._say(f"   BROKEN: {str(exc) or type(exc).__name__}")
                is_broken = True
            if is_broken:
                return False
        self._say("all as promised")
        return True

    async def _first(self) -> None:
        two = self._world.masters[2]
        two.start()
        await self._leads(two, SLOW_MACHINE)
        await self._tell_log(two, "master change to leader")
        await self._keys([two])

    async def _second(self) -> None:
        two, three = self._world.masters[2], self._world.masters[3]
        three.start()
        await self._ready(three)
        leader = three.leadership.leader
        if leader is None or leader.id != two.id:
            raise PromiseBroken(f"Master 3 names {two.id} as the leader, but told {leader}")
        await self._tell_log(three, "watch leader change")
        await self._keys([two, three])

    async def _add(self) -> None:
        two, three = self._world.masters[2], self._world.masters[3]
        spec = {"name": _RESOURCE, "urls": [f"{three.http}/"], "depth": 1, "rate": 20}
        async with httpx.AsyncClient(trust_env=False, timeout=_CALL) as client:
            answer = await client.post(f"{three.http}/resources", json=spec)
            node = answer.raise_for_status().json()
        served_by = answer.headers.get("crawler-served-by", "")
        if served_by != two.id or not node["id"]:
            raise PromiseBroken(f"{two.id} serves the call, but {served_by!r} did: {node}")
        self._say(f"   Master 3 passed it on to {served_by}; Worker {node['id']} crawls it")
        results = await self._results()
        page = results.pages[0]
        self._say(
            f"   {results.fetched} page(s) fetched by Worker {results.worker}: {page.status} "
            f"{page.title!r}"
        )

    async def _stop(self) -> None:
        two, three = self._world.masters[2], self._world.masters[3]
        began = boottime.now()
        async with asyncio.TaskGroup() as group:
            group.create_task(two.stop(), name="stop")
            leading = group.create_task(self._leads_after(three, began), name="leads")
        took = leading.result()
        await self._tell_log(three, "watch leader change", "master change to leader")
        self._say(f"   Master 3 leads {took * 1000:.0f} ms after Master 2 was told to stop")
        if took >= self._world.ttl:
            raise PromiseBroken("a planned stop waits for no lease, but this one did")
        await self._keys([three])
        async with httpx.AsyncClient(trust_env=False, timeout=_CALL) as client:
            answer = await client.get(f"{three.http}/resources/{_RESOURCE}")
            found = answer.raise_for_status().json()
        self._say(f"   Master 3 knows {found['spec']['name']!r}, with Worker {found['node']['id']}")

    async def _leads_after(self, pair: MasterPair, began: float) -> float:
        await self._leads(pair, self._world.ttl + SLOW_MACHINE)
        return boottime.now() - began

    async def _leads(self, pair: MasterPair, within: float) -> None:
        promise = f"Master {pair.number} leads"
        await self._world.until(pair.leadership.is_leader, within, promise)
        await self._ready(pair)

    async def _ready(self, pair: MasterPair) -> None:
        """Wait until a Master says in its log that it is ready."""
        await self._world.until(
            lambda: "master ready" in self._world.log(pair.master),
            SLOW_MACHINE,
            f"Master {pair.number} is ready",
        )

    async def _results(self) -> Results:
        key = keys.results(_RESOURCE)
        try:
            async with (
                asyncio.timeout(SLOW_MACHINE),
                self._etcd.watch(key, key + b"\0", start_revision=0) as batches,
            ):
                while (found := await self._read(key)) is None:
                    await anext(batches)
        except TimeoutError:
            raise PromiseBroken(f"{_RESOURCE!r} is crawled, but there are no results") from None
        return found

    async def _read(self, key: bytes) -> Results | None:
        reply = await self._etcd.read(key, key + b"\0", timeout=_CALL)
        return Results.decode(reply.kvs[0].value) if reply.kvs else None

    async def _keys(self, expected: list[MasterPair]) -> None:
        """Show the keys of the election, which must be these Masters' in this order."""
        found = await candidates(self._etcd)
        self._say(f"   etcdctl get --prefix {ELECTION}/")
        for kv in found:
            self._say(f"     {kv.key.decode()}  (created at revision {kv.create_revision})")
            self._say(f"     {kv.value.decode(errors='replace')}")
        ids = [_id(kv) for kv in found]
        wanted = [pair.id for pair in expected]
        if ids != wanted:
            raise PromiseBroken(f"the keys are those of {wanted}, but there were {ids}")

    async def _tell_log(self, pair: MasterPair, *phrases: str) -> None:
        """Show the last line of a Master's log with each of these phrases, once it is there."""
        for phrase in phrases:
            said = f"the log of {pair.master.name} says {phrase!r}"
            await self._world.until(partial(self._said, pair, phrase), SLOW_MACHINE, said)
            line = self._lines(pair, phrase)[-1]
            self._say(f"   {pair.master.name}: {line.partition(' crawler.')[2]}")

    def _said(self, pair: MasterPair, phrase: str) -> bool:
        return self._lines(pair, phrase) != []

    def _lines(self, pair: MasterPair, phrase: str) -> list[str]:
        return [line for line in self._world.log(pair.master).splitlines() if phrase in line]


def _id(kv: KeyValue) -> str:
    return decode_proposal(kv.key, kv.value).id
