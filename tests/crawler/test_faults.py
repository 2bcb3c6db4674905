"""Handovers, deaths and frozen leaders, under load.

How often each happens is told by the environment, for longer runs than those of the test suite:
CRAWLER_HANDOVERS, CRAWLER_KILLS, CRAWLER_FREEZES, CRAWLER_RATE, CRAWLER_MANY, CRAWLER_WORKERS. With
CRAWLER_IN_TIME=1 the longest gap must be within the promised TTL + 1 s; else only within what a
busy machine can do. `make crawler-faults` measures the same with a load generator of its own.
"""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from tests.crawler.crew import ELECTION, TTL, Crew, Master
from tests.crawler.history import History, history
from tests.crawler.load import Load, add_many
from tests.integration.support import LONG, run_command
from tests.support.bridge import Bridge, Way
from tests.support.procs import wait_until

log = logging.getLogger(__name__)

HANDOVERS = int(os.environ.get("CRAWLER_HANDOVERS", "3"))
KILLS = int(os.environ.get("CRAWLER_KILLS", "2"))
FREEZES = int(os.environ.get("CRAWLER_FREEZES", "1"))
RATE = float(os.environ.get("CRAWLER_RATE", "100"))
IN_TIME = "CRAWLER_IN_TIME" in os.environ

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(300 + 30 * (HANDOVERS + KILLS + FREEZES)),
]

CLEAR = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


def bridge_to(crew: Crew) -> Bridge:
    host, _, port = crew.cluster.endpoints[0].removeprefix("http://").rpartition(":")
    return Bridge(host, int(port))


async def new_leader(crew: Crew, after: int) -> Master:
    return await asyncio.to_thread(crew.leader, after)


async def judge(crew: Crew, load: Load) -> History:
    """Fail on a write of a term that was over, and on an acknowledged call lost or doubled."""
    found = await history(crew.cluster.endpoints, ELECTION)
    assert found.late_writes() == []
    stored = crew.resources()
    assert [name for name in load.done if name not in stored] == []
    assert [name for name in load.done if found.added[name] != 1] == []
    assert {told.code for told in load.failed} <= CLEAR, load.failed[:3]
    assert all(told.details for told in load.failed)
    assert all(len(workers) == 1 for workers in crew.assignments().values())
    return found


async def test_handovers_fail_no_call(crew: Crew) -> None:
    masters = crew.start(2, 3, sidecar=["--drain=1s"])
    crew.work("a", "b")
    async with Load([master.target for master in masters], rate=RATE) as load:
        for _ in range(HANDOVERS):
            token = crew.leader().leadership.token or 0
            await load.until_more(int(RATE))
            command = ("handover", f"--election={ELECTION}")
            endpoints = f"--endpoints={','.join(crew.cluster.endpoints)}"
            done = await asyncio.to_thread(run_command, *command, endpoints)
            assert done.returncode == 0, done.stderr
            await new_leader(crew, token)
            await load.until_more(int(RATE))
    assert load.failed == []
    await judge(crew, load)


async def test_killed_leaders_lose_and_double_nothing(crew: Crew) -> None:
    masters = crew.start(2, 3, 4)
    crew.work("a", "b")
    async with Load([master.target for master in masters], rate=RATE) as load:
        for _ in range(KILLS):
            leader = crew.leader()
            token = leader.leadership.token or 0
            await load.until_more(int(RATE))
            leader.kill()
            await new_leader(crew, token)
            await load.until_more(int(RATE))
            leader.start()
            await asyncio.to_thread(leader.wait_ready)
    await judge(crew, load)
    assert len(load.done) > len(load.failed)
    assert load.longest_gap() <= TTL + (1 if IN_TIME else LONG)


async def test_a_frozen_leader_writes_nothing_when_it_wakes(crew: Crew) -> None:
    masters = crew.start(2, 3)
    crew.work("a", "b")
    async with Load([master.target for master in masters], rate=RATE) as load:
        for _ in range(FREEZES):
            leader = crew.leader()
            token = leader.leadership.token or 0
            await load.until_more(int(RATE))
            leader.freeze()
            await asyncio.sleep(3 * TTL)  # the fault itself: frozen for so long
            await new_leader(crew, token)
            await load.until_more(int(RATE))
            leader.thaw()
            await load.until_more(int(RATE))
    found = await judge(crew, load)
    assert len({token for _, token, _ in found.writes}) > FREEZES


async def test_writes_that_arrive_after_their_term_are_refused_by_the_store(crew: Crew) -> None:
    """What was on its way when the leader froze reaches etcd under the next leader."""
    with bridge_to(crew) as bridge:
        (leader,) = crew.start(2, bridge=bridge.endpoint)
        (other,) = crew.start(3)
        crew.work("a")
        token = leader.leadership.token or 0
        async with Load([leader.target], rate=RATE, timeout=LONG) as load:
            await load.until_more(int(RATE))
            bridge.pause(Way.REQUESTS)
            await load.until(lambda: load.outstanding > RATE / 2)  # most of them on their way
            leader.freeze()
            assert await new_leader(crew, token) is other
            assert other.add("of-the-new-term").status_code == 200
            bridge.resume(Way.REQUESTS)
            leader.thaw()
            await load.until_more(int(RATE))
    found = await judge(crew, load)
    assert {token, other.leadership.token} <= {token for _, token, _ in found.writes}


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_a_write_whose_answer_was_lost_is_done_once_and_acknowledged(
    crew: Crew, method: str
) -> None:
    with bridge_to(crew) as bridge, ThreadPoolExecutor(1) as pool:
        (master,) = crew.start(2, bridge=bridge.endpoint)
        crew.work("a")
        if method == "DELETE":
            master.add("news")
        before = set(crew.resources())
        bridge.lose_replies()
        path = "/resources" if method == "POST" else "/resources/news"
        document = {"name": "news", "urls": ["http://a.example/"]} if method == "POST" else None
        patience = {"Request-Timeout": "30s"}
        answer = pool.submit(master.request, method, path, json=document, headers=patience)
        wait_until(lambda: set(crew.resources()) != before, "etcd has done it", LONG)
        bridge.unblackhole()
        assert answer.result().status_code == 200, answer.result().text
    assert set(crew.resources()) == {"news"} - before


async def test_ten_thousand_resources_and_a_new_leader(crew: Crew) -> None:
    """In small, unless CRAWLER_MANY says how many."""
    many = int(os.environ.get("CRAWLER_MANY", "500"))
    workers = [f"w{number}" for number in range(int(os.environ.get("CRAWLER_WORKERS", "4")))]
    leader, follower = crew.start(2, 3)
    crew.work(*workers)
    names = [f"r{number}" for number in range(many)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    told = await add_many(follower.target, names, at_once=32)
    took = loop.time() - began
    assert all(one.is_done for one in told)
    assert crew.is_settled(names)
    loads = crew.loads()
    assert max(loads) - min(loads) <= 1
    async with Load([follower.target], rate=RATE) as load:
        await load.until_more(int(RATE))
        leader.sidecar.terminate(LONG)
        await load.until_more(int(RATE))
    log.info("added=%d in=%.1fs longest gap=%.3fs", many, took, load.longest_gap())
    if IN_TIME:
        assert took <= 60
        assert load.longest_gap() <= 1
    assert load.failed == []
