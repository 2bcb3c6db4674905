"""What is carried: every byte, in order, both ways, to the end of each half, and no more at once.

Each test runs on both event loops, with `splice` and without.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
import sys
import termios
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.forward import pipes
from sidecar.forward.meter import Tally
from sidecar.forward.proxy_protocol import header
from sidecar.forward.relay import Flow
from tests.component.forward.loops import LOOPS
from tests.support.forwarding import (
    Program,
    Rig,
    forwarding,
    is_ended,
    is_reset,
    programs,
    quiet,
    receive,
    reset,
    send,
)
from tests.support.outputs import until
from tests.support.procs import LOOPBACK

MIB = 1 << 20


def most_held() -> int:
    """Return what two connections of the kernel hold at most, and what is ours: one pipe."""
    kernel = [Path(f"/proc/sys/net/ipv4/tcp_{way}mem").read_text().split()[2] for way in "rw"]
    return 2 * sum(map(int, kernel)) + 2 * MIB


@pytest.fixture(params=["splice", "copy"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    way: str = request.param
    if way == "copy":
        monkeypatch.setattr(pipes, "can_splice", lambda: False)
    else:
        assert pipes.can_splice()
    return way


@pytest.fixture
async def rig(program: Program) -> AsyncIterator[Rig]:
    async with forwarding(program) as made:
        made.lead(1)
        yield made


async def pair(rig: Rig, program: Program) -> tuple[socket.socket, socket.socket]:
    """Return a client, and the program's end of its connection."""
    client = await rig.connect()
    server = await program.take()
    await until(lambda: len(rig.waits) == rig.meter.accepted, "it is carried")
    return client, server


async def both(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
    return [task.result() for task in tasks]


async def test_bytes_go_both_ways_and_are_counted(rig: Rig, program: Program) -> None:
    client, server = await pair(rig, program)
    await send(client, b"question")
    assert await receive(server, 8) == b"question"
    await send(server, b"answer")
    assert await receive(client, 6) == b"answer"
    meter = rig.meter
    assert (meter.to_leader.bytes, meter.to_client.bytes) == (8, 6)
    assert (meter.open, meter.accepted, rig.refused()) == (1, 1, {})


async def test_a_client_that_has_said_all_still_hears_the_answer(
    rig: Rig, program: Program
) -> None:
    client, server = await pair(rig, program)
    await send(client, b"all")
    client.shutdown(socket.SHUT_WR)
    assert await receive(server, 100) == b"all"  # and the end after it
    await send(server, b"answer")
    server.close()
    assert await receive(client, 100) == b"answer"
    await until(lambda: rig.meter.open == 0, "the connection is over")


async def test_a_server_that_has_said_all_still_hears_the_client(
    rig: Rig, program: Program
) -> None:
    client, server = await pair(rig, program)
    server.shutdown(socket.SHUT_WR)
    assert await is_ended(client)
    await send(client, b"more")
    client.close()
    assert await receive(server, 100) == b"more"
    await until(lambda: rig.meter.open == 0, "the connection is over")


@pytest.mark.parametrize("size", [3, 2 * MIB + 3])
async def test_what_is_behind_an_urgent_byte_is_carried(
    rig: Rig, program: Program, size: int
) -> None:
    client, server = await pair(rig, program)
    await both(send(client, bytes(size)), receive(server, size))  # small, or by now in bulk
    for _ in range(20):
        # All of it arrives before any is read, as this is one step of the loop.
        client.send(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.send(b"behind")
        assert await receive(server, 12) == b"beforebehind"
    client.send(b"before")
    client.send(b"!", socket.MSG_OOB)
    client.send(b"the end")
    client.shutdown(socket.SHUT_WR)
    assert await receive(server) == b"beforethe end"


@contextlib.contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the two ends of a connection, one of them not blocking."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with one, other:
        other.setblocking(False)
        yield one, other


async def test_in_bulk_the_end_behind_an_urgent_byte_that_was_not_heard_of_is_carried(
    rig: Rig,
) -> None:
    with tcp_pair() as (client, source), tcp_pair() as (sink, server):
        flow = Flow(source, sink, rig.forwarder._tools, Tally())
        flow._bulk = True
        client.send(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.send(b"the end")
        client.shutdown(socket.SHUT_WR)

        def is_carried() -> bool:
            flow.is_readable = True
            flow.pump()
            return flow.is_done

        await until(is_carried, "it is carried to the end")
        assert await receive(server) == b"beforethe end"


def unconfirmed(sender: socket.socket) -> int:
    """Return how many bytes the other side's kernel has not confirmed yet."""
    return int.from_bytes(fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


async def test_in_bulk_a_mark_that_was_heard_of_is_passed(rig: Rig) -> None:
    tally, tools = Tally(), rig.forwarder._tools
    with tcp_pair() as (client, source), tcp_pair() as (sink, _):
        flow = Flow(source, sink, tools, tally)
        flow._bulk = flow.is_marked = True
        flow._pipe = tools.pipes.borrow()
        client.send(b"before")
        client.send(b"!", socket.MSG_OOB)
        client.send(b"behind")

        await until(lambda: not unconfirmed(client), "all of it has arrived")
        flow.pump()  # once: no later event tells of what was there already
        assert tally.bytes == len(b"beforebehind")
        flow.drop()


async def test_a_reset_is_passed_on_as_a_reset(rig: Rig, program: Program) -> None:
    client, server = await pair(rig, program)
    reset(client)
    assert await is_reset(server)
    client, server = await pair(rig, program)
    reset(server)
    assert await is_reset(client)
    await until(lambda: rig.meter.open == 0, "both connections are over")


async def test_a_client_that_resets_is_noticed_while_the_program_takes_nothing(
    rig: Rig, program: Program
) -> None:
    client, server = await pair(rig, program)
    await fill(client)
    reset(client)
    await until(lambda: rig.meter.open == 0, "the connection is over")
    with pytest.raises(ConnectionResetError):
        await receive(server)


async def fill(sender: socket.socket) -> int:
    """Send until nothing is taken any more; return how much was."""
    sent, block = 0, bytes(MIB)
    while True:
        before = sent
        for _ in range(20):  # what is taken is carried on in turns of the loop
            try:
                sent += sender.send(block)
            except BlockingIOError:
                await asyncio.sleep(0.01)
        if sent == before:
            return sent


async def test_who_reads_nothing_holds_the_sender_back_and_loses_nothing(
    rig: Rig, program: Program
) -> None:
    client, server = await pair(rig, program)
    sent = await fill(client)
    assert sent < most_held()
    assert await receive(server, sent) == bytes(sent)


async def test_large_transfers_arrive_as_they_were_sent(rig: Rig, program: Program) -> None:
    async def transfer(sender: socket.socket, receiver: socket.socket) -> None:
        seen, told = hashlib.sha256(), hashlib.sha256()

        async def send_all() -> None:
            for _ in range(24):
                block = os.urandom(MIB + 17)
                told.update(block)
                await send(sender, block)
            sender.shutdown(socket.SHUT_WR)

        async def receive_all() -> None:
            while block := await receive(receiver, MIB):
                seen.update(block)

        await both(send_all(), receive_all())
        assert seen.digest() == told.digest()

    pairs = [await pair(rig, program) for _ in range(3)]
    flows = [(one, other) for one, other in pairs] + [(other, one) for one, other in pairs]
    await both(*(transfer(*flow) for flow in flows))
    await until(lambda: rig.meter.open == 0, "all connections are over")
    assert rig.meter.to_leader.bytes == rig.meter.to_client.bytes == 3 * 24 * (MIB + 17)


async def test_a_thousand_idle_connections_hold_no_pipe_and_still_answer(
    rig: Rig, program: Program
) -> None:
    pairs = [await pair(rig, program) for _ in range(1000)]
    assert rig.meter.open == 1000
    for number, (client, server) in enumerate(pairs):
        await send(client, str(number).encode())
        assert await receive(server, len(str(number))) == str(number).encode()
    assert rig.forwarder._tools.pipes.count == 0


async def test_what_a_broken_connection_left_in_a_pipe_reaches_nobody_else(
    rig: Rig, program: Program
) -> None:
    for _ in range(4):
        client, server = await pair(rig, program)
        await fill(client)
        reset(server)
        assert await is_reset(client)
    for _ in range(8):
        client, server = await pair(rig, program)
        content = os.urandom(3 * MIB)
        arrived, _ = await both(receive(server, len(content)), send(client, content))
        assert arrived == content
        assert quiet(server)


async def test_pipes_come_back_when_the_bytes_stop(rig: Rig, program: Program) -> None:
    pairs = [await pair(rig, program) for _ in range(20)]
    for client, server in pairs:
        await both(receive(server, 4 * MIB), send(client, bytes(4 * MIB)))
    tools = rig.forwarder._tools
    await until(lambda: tools.pipes.count == len(tools.pipes._spare), "no pipe is lent")
    assert tools.pipes.count <= 16


async def test_where_no_pipe_is_left_bytes_are_carried_all_the_same(
    rig: Rig, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.forwarder._tools.pipes, "borrow", lambda: None)
    client, server = await pair(rig, program)
    content = os.urandom(8 * MIB)
    arrived, _ = await both(receive(server, len(content)), send(client, content))
    assert arrived == content


async def test_the_program_is_told_who_the_client_is(program: Program) -> None:
    async with forwarding(program, proxy_protocol=True) as rig:
        rig.lead(1)
        client, server = await pair(rig, program)
        await send(client, b"hello")
        told = header(client.getsockname(), client.getpeername())
        assert await receive(server, len(told) + 5) == told + b"hello"
        assert rig.meter.to_leader.bytes == 5


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "receive", "end"]),
        st.integers(0, 1),
        st.sampled_from([1, 2, 100, 65_535, 65_536, 65_537, 300_000, 700_000]),
    ),
    max_size=25,
)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
@pytest.mark.parametrize("loop", list(LOOPS))
def test_whatever_the_order_each_side_gets_what_the_other_has_sent(
    loop: str, steps: list[Step]
) -> None:
    async def play() -> None:
        with programs(LOOPBACK) as (program,):
            async with forwarding(program) as rig:
                rig.lead(1)
                sides = await pair(rig, program)
                await interleave(sides, steps)
                await until(lambda: rig.meter.open == 0, "the connection is over")

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(play())


class Side:
    """One end of a connection, with what it has sent and got."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent = self.seen = b""
        self.has_ended = False

    def send(self, size: int) -> None:
        """Send some of what tells its own place, so that anything out of order shows."""
        at = len(self.sent)
        content = b"".join(n.to_bytes(8, "big") for n in range(at, at + size, 8))[:size]
        with contextlib.suppress(BlockingIOError):
            self.sent += content[: self.sock.send(content)]

    def receive(self, size: int) -> None:
        """Take what is there."""
        with contextlib.suppress(BlockingIOError):
            self.seen += self.sock.recv(size)

    def end(self) -> None:
        """Say that this was all."""
        if not self.has_ended:
            self.has_ended = True
            self.sock.shutdown(socket.SHUT_WR)

    async def receive_the_rest(self) -> None:
        self.seen += await receive(self.sock)


async def interleave(sides: tuple[socket.socket, socket.socket], steps: list[Step]) -> None:
    one, other = ends = Side(sides[0]), Side(sides[1])
    for what, who, size in steps:
        if what == "receive":
            await asyncio.sleep(0)
            ends[who].receive(size)
        elif what == "end":
            ends[who].end()
        elif not ends[who].has_ended:
            ends[who].send(size)
    one.end()
    other.end()
    await both(one.receive_the_rest(), other.receive_the_rest())
    assert one.seen == other.sent
    assert other.seen == one.sent
