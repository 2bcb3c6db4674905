"""What the adapter does when an endpoint is silent, beyond what the contract tests can show."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from sidecar.errors import Unavailable
from sidecar.etcd import Credentials, EtcdCoordinator, parse_endpoints
from sidecar.etcd.endpoints import Address
from sidecar.etcd.member import Member


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


async def test_a_watch_that_waits_for_a_connection_ends_with_its_channel(silent_port: int) -> None:
    """gRPC leaves it waiting; without our limit it blocked all watching for five seconds."""
    async with EtcdCoordinator(f"http://127.0.0.1:{silent_port}") as etcd:
        loop = asyncio.get_running_loop()
        took: list[float] = []

        async def watch() -> None:
            began = loop.time()
            with pytest.raises(Unavailable, match="closed"):
                await etcd.watch(b"a", b"b", start_revision=0).__aenter__()
            took.append(loop.time() - began)

        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            with pytest.raises(Unavailable, match="did not answer"):
                await etcd.prove(1, [], timeout=0.5)
        assert took[0] < 4


async def test_every_call_on_a_silent_endpoint_ends_in_its_time(silent_port: int) -> None:
    async with EtcdCoordinator(f"http://127.0.0.1:{silent_port}") as etcd:
        for _ in range(3):
            with pytest.raises(Unavailable, match="did not answer"):
                await etcd.grant(1, 5, timeout=0.2)


async def test_a_name_without_an_address_is_no_answer_and_says_so() -> None:
    async with EtcdCoordinator("http://no-such-host.invalid:2379,b..c:1") as etcd:
        with pytest.raises(Unavailable, match=r"no-such-host\.invalid"):
            await etcd.grant(1, 5, timeout=0.5)


async def test_a_refused_connection_is_told_at_once_and_the_next_endpoint_is_tried(
    silent_port: int,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        async with EtcdCoordinator(
            [f"http://127.0.0.1:{port}", f"127.0.0.1:{silent_port}"]
        ) as etcd:
            with pytest.raises(Unavailable, match="refused"):
                await etcd.grant(1, 5, timeout=5)
            assert etcd.width == 2
            assert etcd.current == f"http://127.0.0.1:{silent_port}"


async def test_a_member_closed_in_the_middle_of_a_renewal_is_no_answer() -> None:
    (endpoint,) = parse_endpoints("http://127.0.0.1:1")
    member = Member(Address(endpoint, "127.0.0.1"), Credentials())

    class Stream:
        """A stream of renewals that is thrown away while the request is written."""

        def cancel(self) -> None:
            """Be cancelled, as a whole."""

        async def write(self, request: object) -> None:
            await member.close()

        async def read(self) -> object:
            raise asyncio.InvalidStateError("the call is cancelled")  # as grpc.aio's does

    member._keep_alive = lambda **_: Stream()
    with pytest.raises(Unavailable):
        await member.prove(1, ())
