"""What a follower passes on: seen by a leader that is this test, with a real sidecar beside it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from crawler import crawler_pb2 as pb
from crawler.calls import FORWARDED_BY, OPERATIONS, SERVED_BY
from crawler.problems import UNTOUCHED

from tests.crawler.crew import ELECTION, TTL, Crew, Master
from tests.crawler.load import Caller
from tests.integration.support import LONG, PROGRAM
from tests.support.procs import LOOPBACK, Child, free_port

pytestmark = pytest.mark.integration


@dataclass
class Seen:
    """One call as it reached the leader."""

    operation: str
    request: bytes
    metadata: dict[str, str | bytes]
    left: float


@dataclass
class Leader:
    """A leading Master that notes calls, and answers as it is told."""

    id: str
    sidecar: Child
    answer: Callable[[int], grpc.StatusCode | None] = lambda count: None
    is_untouched: bool = True
    is_silent: bool = False
    calls: list[Seen] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def handler(self, name: str) -> Any:
        """Return the handler of one operation."""

        async def handle(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata())
            self.calls.append(Seen(name, request, metadata, context.time_remaining()))
            self.asked.set()
            if self.is_silent:
                await asyncio.Event().wait()
            code = self.answer(len(self.calls))
            if code is not None:
                trailers = ((UNTOUCHED, "1"),) if self.is_untouched else ()
                await context.abort(code, "as told", trailers)
            context.set_trailing_metadata(((SERVED_BY, self.id),))
            return OPERATIONS[name].reply().SerializeToString()

        return grpc.unary_unary_rpc_method_handler(handle)


@asynccontextmanager
async def leading(crew: Crew) -> AsyncIterator[Leader]:
    """Lead the election for as long as the block lasts."""
    port = free_port()
    id_ = f"master9-{LOOPBACK}:{port}"
    options = [f"--election={ELECTION}", f"--id={id_}", f"--advertise={LOOPBACK}:{port}"]
    options += [f"--endpoints={','.join(crew.cluster.endpoints)}", f"--ttl={TTL}"]
    options += [f"--status-dir={crew.folder / 'status9'}", f"--http={LOOPBACK}:0"]
    sidecar = Child([*PROGRAM, "run", *options], name="sidecar9", folder=crew.folder)
    leader = Leader(id_, sidecar)
    server = grpc.aio.server()
    handlers = {name: leader.handler(name) for name in OPERATIONS}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("crawler.CrawlerMaster", handlers),)
    )
    server.add_insecure_port(f"{LOOPBACK}:{port}")
    await server.start()
    try:
        sidecar.start()
        sidecar.wait_for_line("change to leader", stream="err", within=LONG)
        yield leader
    finally:
        sidecar.close()
        await server.stop(0)


async def follower(crew: Crew) -> Master:
    """Return a Master behind that leader; this thread must go on serving meanwhile."""
    master = Master(2, ",".join(crew.cluster.endpoints), crew.folder)
    crew.masters.append(master)
    master.start()
    await asyncio.to_thread(master.wait_ready)
    return master


SPEC = pb.ResourceSpec(name="n", urls=["http://n.example/"], depth=1, rate=2, request_id="r-1")


async def test_parameters_deadline_and_metadata_go_on(crew: Crew) -> None:
    async with leading(crew) as leader:
        master = await follower(crew)
        async with Caller(master.target) as caller:
            metadata = [("x-trace", "abc"), ("authorization", "Bearer t")]
            await caller.call("AddResource", SPEC, timeout=20, metadata=metadata)
            await caller.call("ListNodes", pb.ListNodesRequest(), timeout=None)
    added, listed = leader.calls
    assert pb.ResourceSpec.FromString(added.request) == SPEC
    assert dict(metadata).items() <= added.metadata.items()
    assert added.metadata[FORWARDED_BY] == master.id
    assert 10 < added.left < 20
    assert listed.operation == "ListNodes"
    assert 0 < listed.left < 5


async def test_headers_and_timeout_of_http_go_on(crew: Crew) -> None:
    async with leading(crew) as leader:
        master = await follower(crew)
        headers = {"X-Trace": "abc", "Request-Timeout": "20s", "Cookie": "private"}
        answer = await asyncio.to_thread(master.request, "GET", "/resources/n", headers=headers)
        assert (answer.status_code, answer.headers[SERVED_BY]) == (200, leader.id)
    (call,) = leader.calls
    assert pb.GetResourceRequest.FromString(call.request).name == "n"
    assert call.metadata["x-trace"] == "abc"
    assert "cookie" not in call.metadata
    assert 10 < call.left < 20


async def test_an_added_resource_gets_one_request_id_for_all_tries(crew: Crew) -> None:
    async with leading(crew) as leader:
        leader.answer = lambda count: grpc.StatusCode.UNAVAILABLE if count < 3 else None
        leader.is_untouched = False
        master = await follower(crew)
        async with Caller(master.target) as caller:
            assert (await caller.add("n", timeout=LONG)).is_done
    ids = {pb.ResourceSpec.FromString(call.request).request_id for call in leader.calls}
    assert len(leader.calls) == 3
    assert len(ids) == 1
    assert ids != {""}


@pytest.mark.parametrize("is_untouched", [True, False])
async def test_a_delete_is_tried_again_only_when_it_has_changed_nothing(
    crew: Crew, is_untouched: bool
) -> None:
    async with leading(crew) as leader:
        leader.answer = lambda count: grpc.StatusCode.UNAVAILABLE if count < 3 else None
        leader.is_untouched = is_untouched
        master = await follower(crew)
        async with Caller(master.target) as caller:
            request = pb.DeleteResourceRequest(name="n")
            if is_untouched:
                await caller.call("DeleteResource", request, timeout=LONG)
                assert len(leader.calls) == 3
                return
            with pytest.raises(grpc.aio.AioRpcError, match="may have taken effect") as caught:
                await caller.call("DeleteResource", request, timeout=LONG)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(leader.calls) == 1


async def test_what_the_leader_refuses_is_told_as_it_was(crew: Crew) -> None:
    async with leading(crew) as leader:
        leader.answer = lambda count: grpc.StatusCode.ALREADY_EXISTS
        master = await follower(crew)
        async with Caller(master.target) as caller:
            told = await caller.add("n", timeout=LONG)
    assert (told.code, told.details) == (grpc.StatusCode.ALREADY_EXISTS, "as told")
    assert len(leader.calls) == 1


async def test_a_forwarded_call_is_not_forwarded_again(crew: Crew) -> None:
    async with leading(crew) as leader:
        master = await follower(crew)
        async with Caller(master.target) as caller:
            with pytest.raises(grpc.aio.AioRpcError, match="not the leader") as caught:
                await caller.call("AddResource", SPEC, metadata=[(FORWARDED_BY, "master8")])
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert leader.calls == []


async def test_a_call_to_a_silent_leader_goes_to_the_newer_one(crew: Crew) -> None:
    async with leading(crew) as leader:
        leader.is_silent = True
        master = await follower(crew)
        async with Caller(master.target) as caller, asyncio.TaskGroup() as group:
            adding = group.create_task(caller.add("n", timeout=LONG))
            await leader.asked.wait()
            leader.sidecar.kill()  # the next one in the queue is the follower itself
            assert (await adding).is_done
        assert crew.leader() is master
    assert set(crew.resources()) == {"n"}
