"""What a failed call says of itself: "changed nothing" is told only where that is certain."""

import asyncio
from collections.abc import Awaitable
from typing import cast

import grpc
import pytest
from crawler import crawler_pb2 as pb
from crawler.calls import OPERATIONS, Call, Reply
from crawler.master_metrics import Metrics
from crawler.peers import Peers
from crawler.problems import Problem, exists, unanswered
from crawler.routing import Router
from crawler.standing import Seen, Standing

from sidecar.client import LeaderInfo, Status
from sidecar.election.feed import Feed
from sidecar.errors import StoreFull
from tests.crawler.sim_leader import soon, spec, stage
from tests.support.sim_network import Fate

LEADER = LeaderInfo("master9-127.0.0.1:9", "127.0.0.1:9", 7, "/e/1")

pytestmark = pytest.mark.sim


class Sidecar:
    """The standing of a Master that follows, and whoever leads."""

    def __init__(self) -> None:
        self.master_id = "master2-127.0.0.1:2"
        self.seen = Feed(Seen(LEADER, 0))
        self.leadership = self
        self.now: LeaderInfo | None = LEADER

    def status(self) -> Status:
        return Status(leader=self.now)


class Asked:
    """The way to leaders which fail as they are told, one after the other."""

    def __init__(self, sidecar: Sidecar, *problems: Problem) -> None:
        self._sidecar = sidecar
        self._problems = list(problems)

    async def forward(self, call: Call, leader: LeaderInfo) -> Reply:
        problem = self._problems.pop(0)
        if not self._problems:
            self._sidecar.now = None
        raise problem


async def failed(*problems: Problem) -> Problem:
    """Add a resource through leaders that fail so, after which nobody leads; return the end."""
    sidecar = Sidecar()
    asked = Asked(sidecar, *problems)
    router = Router(cast(Standing, sidecar), cast(Peers, asked), Metrics())
    with pytest.raises(Problem) as caught:
        await router.route(Call(OPERATIONS["AddResource"], spec(), soon(1)))
    return caught.value


def elsewhere() -> Problem:
    return Problem(grpc.StatusCode.UNAVAILABLE, "go elsewhere", is_elsewhere=True)


async def test_no_leader_after_an_unheard_answer_may_have_changed_something() -> None:
    problem = await failed(unanswered("the leader"))
    assert problem.message.startswith("there is no leader")
    assert "may have taken effect" in problem.message
    assert not problem.is_untouched


async def test_a_refusal_after_an_unheard_answer_may_have_changed_something() -> None:
    problem = await failed(unanswered("the leader"), elsewhere(), exists("news"))
    assert (problem.code, problem.field) == (grpc.StatusCode.ALREADY_EXISTS, "name")
    assert not problem.is_untouched


async def test_tries_that_changed_nothing_are_told_as_that() -> None:
    problem = await failed(elsewhere(), elsewhere())
    assert problem.is_untouched
    assert "may have taken effect" not in problem.message


def test_a_full_store_after_an_unheard_answer_may_have_changed_something() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                on.sim.lose_next_reply(on.process, "txn")
                on.sim.destine(on.process, "txn", Fate(error=StoreFull("no space")))
                with pytest.raises(Problem) as caught:
                    await leader.add(spec(), soon())
            assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert on.stored("news")
            assert not caught.value.is_untouched

        on.run(body)


def test_a_full_store_at_once_has_changed_nothing() -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, _):
                on.sim.destine(on.process, "txn", Fate(error=StoreFull("no space")))
                with pytest.raises(Problem) as caught:
                    await leader.add(spec(), soon())
            assert not on.stored("news")
            assert caught.value.is_untouched

        on.run(body)


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_term_that_ends_after_a_write_that_landed_may_have_changed_something(
    *, is_heard: bool
) -> None:
    with stage() as on:

        async def body() -> None:
            async with on.leading() as (leader, says):
                if is_heard:  # by an earlier call
                    await leader.add(spec(request_id="r-0"), soon())
                else:
                    on.sim.lose_next_reply(on.process, "txn")
                    on.sim.destine(on.process, "txn", Fate(reply_delay=0.5))
                async with asyncio.TaskGroup() as group:
                    adding = group.create_task(_problem_of(leader.add(spec(), soon())))
                    if not is_heard:
                        await asyncio.sleep(2.3)  # the second try is under way
                    says.token = None
                    problem = await adding
            assert problem.message.startswith("not the leader")
            assert problem.is_untouched == is_heard

        on.run(body)


async def _problem_of(call: Awaitable[pb.NodeSpec]) -> Problem:
    with pytest.raises(Problem) as caught:
        await call
    return caught.value
