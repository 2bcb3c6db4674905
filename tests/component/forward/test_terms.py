"""Who is reached, and when a connection has to wait, to be refused, or to go."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sidecar import errors
from sidecar.core.state import Link
from sidecar.forward.caller import Caller
from sidecar.forward.listener import bind
from sidecar.forward.relay import Relay
from sidecar.forward.resolver import Resolver
from sidecar.forward.routes import Route
from sidecar.forward.rules import parse_rule
from tests.support.forwarding import (
    ELSEWHERE,
    THIRD,
    Program,
    Rig,
    SteppedClock,
    forwarding,
    is_ended,
    programs,
    quiet,
    receive,
    reset,
    send,
)
from tests.support.outputs import LONG, until
from tests.support.procs import LOOPBACK

SHORT = 0.2  # seconds that a test waits out


async def settled(rig: Rig) -> None:
    """Let the forwarder do all that it can do now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def until_carried(rig: Rig, count: int) -> None:
    await until(lambda: len(rig.forwarder._relays) == count, f"{count} are carried")


async def test_a_client_waits_for_a_leader_and_loses_nothing(program: Program) -> None:
    async with forwarding(program) as rig:
        client = await rig.connect()
        await send(client, b"early")
        await until(lambda: rig.meter.open == 1, "it waits")
        rig.lead(1)
        server = await program.take()
        assert await receive(server, 5) == b"early"
        assert len(rig.waits) == 1


async def test_a_client_that_has_waited_in_vain_is_closed_and_counted(program: Program) -> None:
    async with forwarding(program, wait=SHORT) as rig:
        assert await is_ended(await rig.connect())
        await until(lambda: rig.refused() == {"no_leader": 1}, "it is counted")
        rig.follow(ELSEWHERE, 1)  # where nobody listens
        assert await is_ended(await rig.connect())
        await until(lambda: rig.refused() == {"no_leader": 1, "unreachable": 1}, "both are")
        assert rig.meter.open == 0
        assert all(wait >= 0.9 * SHORT for wait in rig.waits)


async def test_a_leader_that_refuses_is_tried_again_and_then_the_newer_one() -> None:
    with programs(ELSEWHERE, THIRD) as (old, new):
        old.close()
        async with forwarding(new) as rig:
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            await send(client, b"question")
            await until(lambda: rig.meter.open == 1, "it waits")
            rig.follow(THIRD, 2)
            assert await receive(await new.take(), 8) == b"question"
        with programs(ELSEWHERE) as (back,):
            async with forwarding(back) as rig:
                rig.follow(ELSEWHERE, 1)
                await rig.connect()
                await back.take()


async def test_a_name_that_cannot_be_asked_for_is_one_that_is_not_known() -> None:
    resolver = Resolver([], LOOPBACK)
    for host in ("a" * 64, "a..b"):
        way = Route(1, is_local=False, hosts=(host, LOOPBACK))
        assert await resolver.resolve(way, 80) == [(socket.AF_INET, (LOOPBACK, 80))]


@pytest.mark.parametrize("where", ["reach", "carry"])
async def test_an_error_costs_the_one_connection_that_it_happened_to(
    where: str,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    async with forwarding(program) as rig:
        rig.lead(1)
        with monkeypatch.context() as patched:
            if where == "reach":
                patched.setattr(Caller, "reach", fail)
            else:
                patched.setattr(Relay, "start", lambda _: "".index("a bug"))
            for _ in range(2):
                assert await is_ended_or_reset(await rig.connect()) == b""
            await until(lambda: rig.meter.open == 0, "both are over")
        assert rig.refused() == ({"failed": 2} if where == "reach" else {})
        assert caplog.text.count("connection not forwarded") == 1
        await rig.connect()
        await until_carried(rig, 1)


@contextmanager
def silent(port: int, host: str) -> Iterator[None]:
    """Listen, and let no connection come up: the queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        full.bind((host, port))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex((host, port))
        yield


@contextmanager
def program_beside_a_silent_one(host: str, silent_host: str) -> Iterator[Program]:
    """Run a program, and on the same port of another address one that never answers."""
    while True:
        with ExitStack() as stack:
            (program,) = stack.enter_context(programs(host))
            try:
                stack.enter_context(silent(program.port, silent_host))
            except OSError:  # that port is taken over there: another one
                continue
            yield program
            return


async def test_a_leader_that_does_not_answer_is_left_for_the_newer_one_at_once() -> None:
    with program_beside_a_silent_one(THIRD, ELSEWHERE) as new:
        async with forwarding(new) as rig:
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            await send(client, b"question")
            await until(lambda: rig.forwarder._directions.outgoing, "it tries the silent one")
            rig.follow(THIRD, 2)
            assert await receive(await new.take(), 8) == b"question"


async def test_a_leader_that_has_not_answered_yet_is_not_reached_whatever_is_heard_of_it() -> None:
    with program_beside_a_silent_one(THIRD, ELSEWHERE) as new:
        async with forwarding(new) as rig:
            rig.follow(ELSEWHERE, 1)
            await rig.connect()
            await until(lambda: rig.forwarder._directions.outgoing, "it tries the silent one")
            (caller,) = rig.forwarder._callers
            first = caller._attempt
            caller._upstream_changed(0)
            await until(
                lambda: rig.forwarder._relays or caller._attempt not in (first, None),
                "it is carried, or tried again",
            )
            assert not rig.forwarder._relays


async def test_a_client_that_is_gone_waits_no_longer(program: Program) -> None:
    async with forwarding(program) as rig:
        silent_one, broken, talking = [await rig.connect() for _ in range(3)]
        await send(broken, b"question")
        await send(talking, b"last words")
        await until(lambda: rig.meter.open == 3, "they wait")
        silent_one.close()
        reset(broken)
        talking.shutdown(socket.SHUT_WR)  # it may only have ended its half
        await until(lambda: rig.refused() == {"client_gone": 2}, "two are counted")
        rig.lead(1)
        server = await program.take()
        assert await receive(server) == b"last words"
        await send(server, b"answer")
        assert await receive(talking, 6) == b"answer"


async def test_a_program_that_does_not_listen_on_the_loopback_is_reached_as_others_reach_it() -> (
    None
):
    with programs(ELSEWHERE) as (program,):
        async with forwarding(program, own_host="192.0.2.1") as rig:
            # An address of this machine that is no loopback one is not at hand; its turn comes.
            rig.lead(1)
            route = rig.forwarder._route()
            assert route is not None
            assert route.hosts == (LOOPBACK, "192.0.2.1")
        async with forwarding(program, own_host=ELSEWHERE) as rig:
            rig.lead(1)
            await rig.connect()
            await program.take()


async def test_from_the_step_down_on_nothing_new_goes_to_the_local_program() -> None:
    with programs(LOOPBACK, ELSEWHERE) as (own, other):
        async with forwarding(own) as rig:
            rig.lead(1)
            old_client = await rig.connect()
            old_server = await own.take()
            await until_carried(rig, 1)
            rig.step_down()
            client = await rig.connect()
            await send(client, b"new")
            await rig.forwarder.settle()
            await until(lambda: rig.meter.open == 2, "the new one waits")
            await send(old_client, b"work in hand")
            assert await receive(old_server, 12) == b"work in hand"
            assert not own.has_a_visitor()
            rig.follow(ELSEWHERE, 2)
            assert await receive(await other.take(), 3) == b"new"
            assert not own.has_a_visitor()


async def test_a_step_down_breaks_off_what_is_just_being_connected() -> None:
    with program_beside_a_silent_one(ELSEWHERE, LOOPBACK) as other:
        async with forwarding(other) as rig:
            rig.lead(1)
            client = await rig.connect()
            await send(client, b"question")
            outgoing = rig.forwarder._directions.outgoing
            await until(lambda: outgoing, "it tries the own program")
            rig.step_down()
            await rig.forwarder.settle()
            assert not outgoing
            rig.follow(ELSEWHERE, 2)
            assert await receive(await other.take(), 8) == b"question"


async def test_a_connection_that_comes_up_after_the_step_down_is_not_used(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with forwarding(program) as rig:
        rig.lead(1)
        resolve = rig.forwarder._directions.resolve
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(route, port):  # type: ignore[no-untyped-def]
            found = await resolve(route, port)
            asked.set()
            await go_on.wait()
            return found

        object.__setattr__(rig.forwarder._directions, "resolve", slow)
        client = await rig.connect()
        await send(client, b"question")
        await asked.wait()
        rig.step_down()
        await rig.forwarder.settle()
        go_on.set()
        await until(program.has_a_visitor, "it came up all the same")
        assert await is_ended(program._taken[-1])  # without a byte
        assert rig.meter.open == 1
        assert not rig.forwarder._relays


async def test_a_leader_that_was_frozen_past_its_deadline_passes_nothing_new(
    program: Program,
) -> None:
    clock = SteppedClock()
    async with forwarding(program, clock=clock) as rig:
        rig.lead(1, lasts=5.0)
        clock.ahead = 6.0  # and nobody has published anything
        client = await rig.connect()
        await send(client, b"question")
        await until(lambda: rig.meter.open == 1, "it waits")
        await settled(rig)
        assert not program.has_a_visitor()


async def test_after_a_long_freeze_not_one_byte_more_goes_to_the_local_program(
    program: Program,
) -> None:
    clock = SteppedClock()
    async with forwarding(program, clock=clock, drain=2.0) as rig:
        rig.lead(1, lasts=5.0)
        client = await rig.connect()
        server = await program.take()
        await until_carried(rig, 1)
        clock.ahead = 8.0  # the deadline and the drain have passed; its timers know nothing yet
        await send(client, b"late")
        assert await is_ended_or_reset(server) == b""
        assert rig.meter.outlived == 1


async def test_after_a_freeze_in_the_drain_not_one_byte_more_goes_to_the_local_program(
    program: Program,
) -> None:
    clock = SteppedClock()
    async with forwarding(program, clock=clock, drain=2.0) as rig:
        rig.lead(1)
        client = await rig.connect()
        server = await program.take()
        await until_carried(rig, 1)
        rig.step_down(lasts=5.0)
        await rig.forwarder.settle()
        clock.ahead = 8.0
        await send(client, b"late")
        assert await is_ended_or_reset(server) == b""
        assert rig.meter.outlived == 1


async def is_ended_or_reset(sock: socket.socket) -> bytes:
    try:
        return await receive(sock)
    except ConnectionResetError:
        return b""


async def test_connections_of_an_older_term_are_closed_after_the_drain_and_not_before() -> None:
    with programs(ELSEWHERE, THIRD) as (old, new):
        async with forwarding(old, drain=SHORT) as rig:
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            server = await old.take()
            await until_carried(rig, 1)
            began = asyncio.get_running_loop().time()
            rig.follow(THIRD, 2)
            await send(client, b"still")
            assert await receive(server, 5) == b"still"
            assert await is_ended(client)
            assert await is_ended(server)
            assert asyncio.get_running_loop().time() - began >= 0.9 * SHORT
            assert (rig.meter.outlived, rig.meter.open) == (1, 0)
            assert not new.has_a_visitor()  # never moved


async def test_a_timer_that_goes_off_early_ends_an_older_term_all_the_same() -> None:
    clock = SteppedClock()
    with programs(ELSEWHERE, THIRD) as (old, _):
        async with forwarding(old, clock=clock, drain=SHORT) as rig:
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            await until_carried(rig, 1)
            began = asyncio.get_running_loop().time()
            rig.follow(THIRD, 2)
            await settled(rig)
            clock.ahead -= SHORT / 2  # the timer is early by as much
            assert await is_ended(client)
            assert asyncio.get_running_loop().time() - began >= 0.9 * 1.5 * SHORT


async def test_a_renewed_term_and_a_lost_link_close_nothing(program: Program) -> None:
    clock = SteppedClock()
    async with forwarding(program, clock=clock, drain=0.0) as rig:
        rig.lead(1, lasts=5.0)
        client = await rig.connect()
        server = await program.take()
        await until_carried(rig, 1)
        for _ in range(3):
            clock.ahead += 4.0
            rig.lead(1, lasts=5.0)
            await settled(rig)
        await send(client, b"x")
        assert await receive(server, 1) == b"x"
    with programs(ELSEWHERE) as (other,):
        async with forwarding(other, drain=0.0) as rig:
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            server = await other.take()
            await until_carried(rig, 1)
            rig.publish(link=Link.SUSPENDED, leader=None)
            await settled(rig)
            await send(client, b"x")
            assert await receive(server, 1) == b"x"
            rig.nobody()
            rig.publish(link=Link.CONNECTED)
            assert await is_ended(client)


@pytest.mark.parametrize("host", ["", LOOPBACK])
async def test_it_never_connects_to_itself(host: str) -> None:
    listening = bind([parse_rule(f"{host}:0=1")])
    port = listening[0].getsockname()[1]
    async with forwarding(port, listening=listening) as rig:
        rig.lead(1)
        assert await is_ended(await rig.connect())
        await until(lambda: rig.refused() == {"loop": 1}, "it is counted")


async def test_a_connection_from_itself_is_closed(program: Program) -> None:
    async with forwarding(program) as rig:
        rig.lead(1)
        client = socket.socket()
        client.bind((LOOPBACK, 0))
        rig.forwarder._directions.outgoing.add((client.getsockname(), (LOOPBACK, rig.port)))
        client.connect((LOOPBACK, rig.port))
        client.setblocking(False)
        assert await is_ended(client)
        assert rig.refused() == {"loop": 1}
        client.close()


async def test_a_client_with_the_address_and_port_of_an_outgoing_connection_is_no_loop() -> None:
    """The kernel gives both to two connections at once, where they go to different places."""
    with programs(ELSEWHERE) as (other,):
        async with forwarding(other) as rig:
            rig.follow(ELSEWHERE, 1)
            with socket.socket() as client:
                client.setblocking(False)
                client.bind((LOOPBACK, 0))
                rig.forwarder._directions.outgoing.add((client.getsockname(), (THIRD, 1)))
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, (LOOPBACK, rig.port))
                await loop.sock_sendall(client, b"question")
                assert await receive(await other.take(), 8) == b"question"


async def test_whoever_was_tried_in_vain_leaves_no_name_behind() -> None:
    with programs(ELSEWHERE, THIRD) as (old, new):
        old.close()
        async with forwarding(new) as rig:
            outgoing = rig.forwarder._directions.outgoing
            rig.follow(ELSEWHERE, 1)
            client = await rig.connect()
            await until(lambda: rig.meter.open == 1, "it waits")
            rig.follow(THIRD, 2)
            server = await new.take()
            await until_carried(rig, 1)
            assert len(outgoing) == 1
            client.close()
            server.close()
            await until(lambda: rig.meter.open == 0, "it is over")
            assert not outgoing


async def test_more_clients_than_allowed_are_closed(program: Program) -> None:
    async with forwarding(program, most=2) as rig:
        rig.lead(1)
        one, _ = await rig.connect(), await rig.connect()
        await until_carried(rig, 2)
        assert await is_ended(await rig.connect())
        assert rig.refused() == {"too_many": 1}
        one.close()
        (await program.take()).close()
        await until(lambda: rig.meter.open == 1, "there is room again")
        third = await rig.connect()
        await send(third, b"x")
        await until_carried(rig, 2)


async def test_a_client_waits_in_the_backlog_while_no_descriptor_is_left(program: Program) -> None:
    async with forwarding(program) as rig:
        rig.lead(1)
        late = socket.socket()
        late.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as probe:
            free = probe.fileno()
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
            await asyncio.get_running_loop().sock_connect(late, (LOOPBACK, rig.port))
            await until(lambda: rig.refused().get("no_resources"), "it is counted")
            assert rig.meter.accepted == 0
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await program.take()
        late.close()


async def test_closing_gives_the_connections_the_drain_time(program: Program) -> None:
    async with forwarding(program, drain=LONG) as rig:
        client = await rig.connect()
        await until(lambda: rig.meter.open == 1, "it waits")
        rig.lead(1)
        server = await program.take()
        await until_carried(rig, 1)
        rig.nobody()
        waiting = await rig.connect()
        await until(lambda: rig.meter.open == 2, "one waits")
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(rig.forwarder.close())
            assert await is_ended(waiting)
            with pytest.raises(ConnectionRefusedError):
                await rig.connect()
            await send(client, b"on")
            assert await receive(server, 2) == b"on"
            assert not closing.done()
            client.close()
            server.close()
        assert rig.refused() == {"stopping": 1}
    async with forwarding(program, drain=SHORT) as rig:
        rig.lead(1)
        client = await rig.connect()
        await until_carried(rig, 1)
        assert quiet(client)
        await rig.forwarder.close()
        assert await is_ended(client)


async def test_a_forwarder_that_fails_keeps_no_key(
    program: Program, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with forwarding(program) as rig:

        def fail(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(rig.forwarder._terms, "look", fail)
        await rig.forwarder.settle()
        assert "forwarder failed" in caplog.text


def test_all_ports_that_are_taken_are_told_at_once() -> None:
    with socket.create_server((LOOPBACK, 0)) as one, socket.create_server((LOOPBACK, 0)) as two:
        taken = [each.getsockname()[1] for each in (one, two)]
        with pytest.raises(errors.ConfigError) as caught:
            bind([parse_rule(f"{LOOPBACK}:{port}=9090") for port in taken])
    assert len(caught.value.problems) == 2
    assert f"--forward: cannot listen on {LOOPBACK}:{taken[0]}" in caught.value.problems[0]
