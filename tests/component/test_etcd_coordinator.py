"""What the adapter does when an endpoint is silent, beyond what the contract tests can show."""

import asyncio
import socket
from collections.abc import Iterator, Sequence

import pytest

from sidecar.errors import Unavailable
from sidecar.etcd import Credentials, EtcdCoordinator, coordinator, parse_endpoints
from sidecar.etcd.endpoints import Address, Endpoint
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


class Names:
    """A name server whose answers change."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = asyncio.Event()

    async def resolve(self, endpoints: Sequence[Endpoint]) -> tuple[Address, ...]:
        self.asked.set()
        return tuple(Address(endpoint, host) for endpoint in endpoints for host in self.hosts)

    async def answers(self, *hosts: str) -> None:
        """Answer something else, and wait until that was taken in."""
        self.hosts = hosts
        for _ in range(2):
            self.asked.clear()
            await self.asked.wait()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names("127.0.0.1")
    monkeypatch.setattr(coordinator, "resolve", made.resolve)
    monkeypatch.setattr(coordinator, "_RESOLVE_ANYHOW", (0.05,))
    monkeypatch.setattr(coordinator, "_RESOLVE_AGAIN", 0.05)
    return made


async def test_members_that_get_their_address_later_are_known_before_one_fails(
    names: Names, silent_port: int
) -> None:
    async with EtcdCoordinator(f"http://etcd.test:{silent_port}") as etcd, asyncio.timeout(60):
        await names.answers("127.0.0.1", "127.0.0.2", "127.0.0.3")
        assert etcd.width == 3


async def test_the_address_in_use_is_left_when_it_fails_and_not_when_the_name_forgets_it(
    names: Names, silent_port: int
) -> None:
    async with EtcdCoordinator(f"http://etcd.test:{silent_port}") as etcd, asyncio.timeout(60):
        await names.answers("127.0.0.1")
        used = etcd.current
        await names.answers("127.0.0.2")
        assert (etcd.width, etcd.current) == (2, used)
        with pytest.raises(Unavailable, match="did not answer"):
            await etcd.grant(1, 5, timeout=0.1)
        await names.answers("127.0.0.2")
        assert etcd.width == 1
        assert etcd.current != used


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
