"""A forwarder alone on the loopback, with a feed that the test writes, and programs to reach."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Reason, Role
from sidecar.election.background import Background
from sidecar.election.feed import Feed
from sidecar.election.ports import Clock, SystemClock
from sidecar.forward.forwarder import ForwardConfig, Forwarder
from sidecar.forward.listener import bind
from sidecar.forward.meter import ForwardMeter
from sidecar.forward.rules import parse_rule
from tests.support.outputs import LONG, PATIENCE
from tests.support.procs import LOOPBACK

ELSEWHERE, THIRD = "127.0.0.2", "127.0.0.3"
"""Other machines, as it were: the leader's port is the same on each."""

_WITHOUT_END, _AT_ONCE = 1 << 40, 1 << 20

RESET = struct.pack("ii", 1, 0)
_START = ElectionState("/e", "me", link=Link.CONNECTED, is_registered=True)


class SteppedClock(SystemClock):
    """The machine's clock, which a test may set forward: as after a freeze."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class Program:
    """A program that the leader may be: it takes connections, and leaves the rest to the test."""

    def __init__(self, host: str = LOOPBACK, port: int = 0) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(2048)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._taken: list[socket.socket] = []

    async def take(self) -> socket.socket:
        """Return the next connection."""
        async with asyncio.timeout(PATIENCE):
            taken, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        taken.setblocking(False)
        self._taken.append(taken)
        return taken

    def has_a_visitor(self) -> bool:
        """Whether somebody has connected who was not taken yet."""
        with contextlib.suppress(BlockingIOError):
            self._taken.append(self._listener.accept()[0])
            return True
        return False

    def close(self) -> None:
        """Refuse connections from now on, and end those there are."""
        self._listener.close()
        for taken in self._taken:
            taken.close()


class Rig:
    """A forwarder, its feed, and clients of it."""

    def __init__(
        self,
        forwarder: Forwarder,
        feed: Feed[ElectionState],
        clock: Clock,
        meter: ForwardMeter,
    ) -> None:
        self.forwarder = forwarder
        self.feed = feed
        self.clock = clock
        self.meter = meter
        self.waits: list[float] = []
        meter.waited = self.waits.append
        self.port = 0
        self._clients: list[socket.socket] = []

    def publish(self, **changes: Any) -> None:
        """Tell a new state."""
        self.feed.publish(replace(self.feed.value, **changes))

    def lead(self, token: int, lasts: float = LONG) -> None:
        """Be the leader."""
        leader = Leader("me", LOOPBACK, token, "k")
        deadline = self.clock.now() + lasts
        self.publish(
            role=Role.LEADER,
            token=token,
            key="k",
            deadline=deadline,
            kept_until=NEVER,
            leader=leader,
            reason=Reason.ELECTED,
            link=Link.CONNECTED,
        )

    def step_down(self, lasts: float = LONG) -> None:
        """Lead no more; the key still stands first."""
        self.publish(
            role=Role.FOLLOWER,
            token=0,
            key="",
            deadline=NEVER,
            kept_until=self.clock.now() + lasts,
            reason=Reason.HANDOVER,
        )

    def follow(self, host: str, token: int) -> None:
        """Let somebody else lead."""
        leader = Leader("other", f"{host}:1", token, "o")
        self.publish(
            role=Role.FOLLOWER,
            token=0,
            key="",
            deadline=NEVER,
            kept_until=NEVER,
            leader=leader,
            link=Link.CONNECTED,
        )

    def nobody(self) -> None:
        """Let nobody lead."""
        self.publish(
            role=Role.FOLLOWER, token=0, key="", deadline=NEVER, kept_until=NEVER, leader=None
        )

    async def connect(self, source: str = LOOPBACK) -> socket.socket:
        """Return a new client."""
        client = socket.socket()
        client.setblocking(False)
        client.bind((source, 0))
        self._clients.append(client)
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().sock_connect(client, (LOOPBACK, self.port))
        return client

    def refused(self) -> dict[str, int]:
        """Return the refusals there were, by reason."""
        return {str(reason): count for reason, count in self.meter.refused.items() if count}

    def close(self) -> None:
        """End all clients."""
        for client in self._clients:
            client.close()


@contextlib.asynccontextmanager
async def forwarding(
    program: Program | int,
    *,
    clock: Clock | None = None,
    listening: Sequence[socket.socket] = (),
    **options: Any,
) -> AsyncIterator[Rig]:
    """Run a forwarder to the port of a program; it is gone afterwards.

    `listening` is its socket, made by `bind`, where it is not to be one on the loopback.
    """
    port = program if isinstance(program, int) else program.port
    rules = (parse_rule(f"{LOOPBACK}:0={port}"),)
    listening = listening or bind(rules)
    feed = Feed(_START)
    clock = clock or SystemClock()
    config = ForwardConfig(rules, **{"own_host": LOOPBACK, "wait": LONG, "drain": LONG, **options})
    meter = ForwardMeter()
    rig = Rig(Forwarder(config, listening, feed, clock, meter), feed, clock, meter)
    rig.port = listening[0].getsockname()[1]
    try:
        async with Background() as tasks:
            tasks.start(rig.forwarder.run(), name="forwarder")
            await asyncio.sleep(0)
            yield rig
    finally:
        rig.close()


@contextlib.contextmanager
def programs(*hosts: str) -> Iterator[list[Program]]:
    """Return programs at several hosts, all on one port."""
    made = [Program(hosts[0])]
    try:
        made.extend(Program(host, made[0].port) for host in hosts[1:])
        yield made
    finally:
        for program in made:
            program.close()


async def send(sock: socket.socket, content: bytes) -> None:
    """Send all of it."""
    async with asyncio.timeout(PATIENCE):
        await asyncio.get_running_loop().sock_sendall(sock, content)


async def receive(sock: socket.socket, size: int = _WITHOUT_END) -> bytes:
    """Return so many bytes, or what came before the end."""
    content = bytearray()
    async with asyncio.timeout(PATIENCE):
        while len(content) < size:
            wanted = min(size - len(content), _AT_ONCE)
            part = await asyncio.get_running_loop().sock_recv(sock, wanted)
            if not part:
                break
            content += part
    return bytes(content)


async def is_ended(sock: socket.socket) -> bool:
    """Wait for the end of what is sent to this socket; anything else fails."""
    return await receive(sock, 1) == b""


async def is_reset(sock: socket.socket) -> bool:
    """Wait for what comes next; whether it is a reset."""
    try:
        await receive(sock, 1)
    except ConnectionResetError:
        return True
    return False


def reset(sock: socket.socket) -> None:
    """Break a connection off."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


def quiet(sock: socket.socket) -> bool:
    """Whether nothing has arrived."""
    try:
        sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return False
