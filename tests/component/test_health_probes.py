"""The probes against real servers and processes on the loopback, and the loop around them."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar import health
from sidecar.addresses import HostPort, parse_url
from sidecar.core.health import Health, HealthGate
from sidecar.election.ports import SystemClock
from sidecar.health import ExecProbe, HttpProbe, ProbeResult, TcpProbe, ask_within, probe_from
from tests.support.procs import PATIENCE, free_port
from tests.support.tls import make_tls

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

GONE_WITHIN = PATIENCE / 2  # seconds; below the limit of a test, so that it can clean up
GENEROUS = PATIENCE  # seconds; a good answer comes at once, a slow machine is no failure
SHORT = 0.1  # seconds given to what never answers


@asynccontextmanager
async def served(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections on a free port of the loopback, and end with all of them closed."""
    ended = asyncio.Event()
    handlers = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal handlers
        handlers += 1
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            handlers -= 1
            ended.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        async with asyncio.timeout(PATIENCE):
            while handlers:
                ended.clear()
                await ended.wait()


def answering(answer: bytes, heard: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(request)
        writer.write(answer)
        await writer.drain()

    return serve


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()  # until the other side hangs up


async def http(port: int, within: float = GENEROUS, scheme: str = "http") -> ProbeResult:
    return await ask_within(HttpProbe(parse_url(f"{scheme}://127.0.0.1:{port}/z?a=b")), within)


@pytest.mark.parametrize(
    ("status", "is_good"),
    [(199, False), (200, True), (204, True), (302, True), (399, True), (400, False), (503, False)],
)
async def test_a_status_from_200_to_399_is_good(status: int, is_good: bool) -> None:
    async with served(answering(f"HTTP/1.1 {status} Whatever\r\n\r\n".encode())) as port:
        assert await http(port) == ProbeResult(is_good, f"HTTP status {status}")


async def test_the_request_is_a_plain_get_of_the_path() -> None:
    heard: list[bytes] = []
    async with served(answering(b"HTTP/1.0 200\r\n\r\n", heard)) as port:
        assert (await http(port)).is_good
    first, *headers = heard[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert first == "GET /z?a=b HTTP/1.1"
    assert f"Host: 127.0.0.1:{port}" in headers
    assert "Connection: close" in headers


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"", "hung up without an answer"),
        (b"SSH-2.0-x\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 2000 x\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 \xb2\xb3\xb9 x\r\n", "the answer is not HTTP"),
        (b"x" * 100_000, "Separator is not found, and chunk exceed the limit"),
    ],
)
async def test_what_is_not_http_is_bad(answer: bytes, detail: str) -> None:
    async with served(answering(answer)) as port:
        assert await http(port) == ProbeResult(is_good=False, detail=detail)


async def test_an_untrusted_certificate_is_no_reason_to_be_unhealthy(tmp_path: Path) -> None:
    pair = make_tls(tmp_path).server
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with served(answering(b"HTTP/1.1 200 OK\r\n\r\n"), context) as port:
        assert (await http(port, scheme="https")).is_good
        assert not (await http(port, scheme="http")).is_good


@pytest.mark.parametrize("make", [HttpProbe, TcpProbe])
async def test_a_port_that_nobody_listens_on_is_bad(make: type[HttpProbe | TcpProbe]) -> None:
    where = HostPort("127.0.0.1", free_port())
    probe = probe_from(
        http=parse_url(f"http://{where}") if make is HttpProbe else None,
        command=None,
        tcp=where if make is TcpProbe else None,
    )
    assert isinstance(probe, make)
    result = await ask_within(probe, GENEROUS)
    assert not result.is_good
    assert "Connect call failed" in result.detail


async def test_a_silent_server_is_bad_for_http_and_good_for_tcp() -> None:
    async with served(silent) as port:
        assert await http(port, SHORT) == ProbeResult(False, "no answer within 0.1 s")
        probe = TcpProbe(HostPort("localhost", port))
        assert await ask_within(probe, GENEROUS) == ProbeResult(True, "connected")


async def test_a_name_that_cannot_be_looked_up_is_bad() -> None:
    for name in ("no-such-host.invalid", "a" * 70):  # unknown; too long for a label
        assert not (await ask_within(TcpProbe(HostPort(name, 1)), GENEROUS)).is_good


async def test_a_silent_name_server_holds_no_thread_of_the_common_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    looking, released = asyncio.Event(), asyncio.Event()

    def never(*_: object, **__: object) -> list[object]:
        loop.call_soon_threadsafe(looking.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(PATIENCE)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", never)
    probe = TcpProbe(HostPort("db", 1))
    try:
        for _ in range(3):
            assert not (await ask_within(probe, SHORT)).is_good
        await looking.wait()
        executor = getattr(loop, "_default_executor", None)
        assert executor is None, "the lookups went to the common pool"
    finally:
        released.set()


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ("exit 0", ProbeResult(True, "exit code 0")),
        ("exit 3", ProbeResult(False, "exit code 3")),
        ("kill -9 $$", ProbeResult(False, "killed by signal 9")),
        ("yes | head -c 1000000; yes | head -c 1000000 >&2", ProbeResult(True, "exit code 0")),
    ],
)
async def test_a_command_is_good_if_it_exits_with_0(script: str, result: ProbeResult) -> None:
    assert await ask_within(ExecProbe(["sh", "-c", script]), GENEROUS) == result


async def test_a_program_that_is_missing_or_not_executable_is_bad() -> None:
    for program in ("/no/such/program", __file__):
        assert not (await ask_within(ExecProbe([program]), GENEROUS)).is_good


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    yield path
    path.unlink()


# Both processes hold the FIFO until they are gone; the outer one says who they are.
HOLDERS = 'exec >"$0"; trap "" TERM; sleep 600 & echo $$ $!; wait'


async def test_a_command_whose_time_is_up_is_killed_with_its_children(fifo: Path) -> None:
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    loop = asyncio.get_running_loop()
    said: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(reader, lambda: said.put_nowait(os.read(reader, 100)))
    holders: list[int] = []
    try:
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            asking = group.create_task(ExecProbe(["sh", "-c", HOLDERS, str(fifo)]).ask())
            # A time limit cancels, too; cancelled here, both processes are certainly up.
            holders += map(int, (await said.get()).split())
            asking.cancel()
        async with asyncio.timeout(GONE_WITHIN):
            assert await said.get() == b""  # the end of the file: nobody holds it any more
        holders.clear()
    finally:
        loop.remove_reader(reader)
        os.close(reader)
        for pid in holders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_command_has_its_time_and_no_more() -> None:
    result = await ask_within(ExecProbe(["sleep", "600"]), SHORT)
    assert result == ProbeResult(is_good=False, detail="no answer within 0.1 s")


async def test_a_command_gets_no_terminal_and_a_process_group_of_its_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    script = "import os, sys; open(sys.argv[1], 'w').write(f'{os.getpgid(0)} {os.getpid()}')"
    assert (await ask_within(ExecProbe([sys.executable, "-c", script, str(out)]), GENEROUS)).is_good
    group, pid = out.read_text().split()
    assert group == pid


def test_there_is_no_probe_without_a_setting() -> None:
    assert probe_from(http=None, command=None, tcp=None) is None
    assert isinstance(probe_from(http=None, command=["true"], tcp=None), ExecProbe)


class Scripted:
    """A probe that answers from a list, then waits forever."""

    def __init__(self, answers: str) -> None:
        self._answers = iter(answers)
        self.exhausted = asyncio.Event()

    async def ask(self) -> ProbeResult:
        match next(self._answers, None):
            case None:
                self.exhausted.set()
                raise asyncio.CancelledError
            case "!":
                raise ConnectionResetError("reset")
            case answer:
                return ProbeResult(answer == "+", f"said {answer}")


class SteppingClock(SystemClock):
    """A clock on which each look is five seconds after the one before."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        self._now += 5
        return self._now


async def changes(answers: str) -> list[tuple[Health, str]]:
    """Run the loop until the answers are used up; return what it reported."""
    found: list[tuple[Health, str]] = []
    probe = Scripted(answers)
    with pytest.raises(asyncio.CancelledError):
        await health.run(
            HealthGate(failures=2),
            probe,
            interval=0.001,
            clock=SteppingClock(),
            on_change=lambda gate, detail: found.append((gate.health, detail)),
        )
    assert probe.exhausted.is_set()
    return found


async def test_the_loop_reports_changes_only() -> None:
    assert await changes("--++-+--+++++") == [
        (Health.HEALTHY, "said +"),
        (Health.UNHEALTHY, "said -"),
        (Health.HEALTHY, "said +"),
    ]


async def test_a_probe_that_fails_in_itself_is_a_bad_probe() -> None:
    assert await changes("+!!") == [(Health.HEALTHY, "said +"), (Health.UNHEALTHY, "reset")]


async def test_the_log_tells_each_change_and_once_that_it_was_never_healthy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, logger="sidecar.health"):
        await changes("-----+--")
    assert [record.getMessage() for record in caplog.records] == [
        "program is not healthy yet failures=2 detail='said -'",
        "program is healthy detail='said +'",
        "program is unhealthy failures=2 stands_back_s=10 detail='said -'",
    ]


async def test_a_probe_has_the_interval_where_that_is_shorter_than_a_second() -> None:
    found: list[str] = []
    stop = asyncio.Event()

    def on_change(_: HealthGate, detail: str) -> None:
        found.append(detail)
        stop.set()

    async with served(silent) as port, asyncio.TaskGroup() as group:
        running = group.create_task(
            health.run(
                HealthGate(failures=1, health=Health.HEALTHY),
                HttpProbe(parse_url(f"http://127.0.0.1:{port}")),
                interval=SHORT,
                clock=SystemClock(),
                on_change=on_change,
            )
        )
        async with asyncio.timeout(PATIENCE):
            await stop.wait()
        running.cancel()
    assert found == ["no answer within 0.1 s"]
