"""What is made of a call that comes while the leader's server is being stopped."""

import asyncio
from collections import Counter

import grpc
import grpc.aio
from crawler.problems import from_rpc

ROUNDS, CLIENTS = 20, 20
METHOD = grpc.unary_unary_rpc_method_handler


async def _answer(request: bytes, _: object) -> bytes:
    return request


async def _cut_off() -> list[grpc.aio.AioRpcError]:
    """Stop a server while it is being asked; return what those heard that were not answered."""
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler("Test", {"Ask": METHOD(_answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def ask() -> grpc.aio.AioRpcError:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method = channel.unary_unary("/Test/Ask", None, None)
            while True:
                try:
                    await method(b"", timeout=10)
                except grpc.aio.AioRpcError as error:
                    return error

    asked = [asyncio.create_task(ask()) for _ in range(CLIENTS)]
    await asyncio.sleep(0.1)
    await server.stop(1.0)
    return await asyncio.gather(*asked)


async def test_a_call_that_meets_a_server_that_stops_may_be_sent_to_another() -> None:
    heard: Counter[grpc.StatusCode] = Counter()
    for _ in range(ROUNDS):
        for error in await _cut_off():
            heard[error.code()] += 1
            problem = from_rpc(error, "master-2")
            assert problem.is_elsewhere
            assert not problem.is_untouched
            assert problem.http_status == 503
        if heard[grpc.StatusCode.CANCELLED]:
            return
    # Then gRPC has come to say it otherwise, and what is made of CANCELLED may go.
    raise AssertionError(f"no call was cancelled by a server that stops: {heard}")
