import asyncio
import contextlib
import json
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

import sidecar
from sidecar.core.codec import TermRecord
from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Link, Reason, Role
from sidecar.election.feed import Feed
from sidecar.errors import ConfigError
from sidecar.outputs import events
from sidecar.outputs.endpoints import Endpoints, ReadyWhen
from sidecar.outputs.http import HttpServer, bind
from sidecar.outputs.metrics import Metrics
from tests.support.outputs import FOLLOWER, LONG, SetClock, leading, stepped_down, until
from tests.support.procs import ReservedPort

PATHS = (
    "/leader",
    "/follower",
    "/readyz",
    "/livez",
    "/status",
    "/history",
    "/events",
    "/metrics",
    "/",
)


class Rig:
    """A server on a loopback port, and what it answers from."""

    def __init__(self, ready_when: ReadyWhen = "candidate") -> None:
        self.clock = SetClock()
        self.feed: Feed[ElectionState] = Feed(FOLLOWER)
        self.is_alive = True
        self.is_started = True
        self.history: list[TermRecord] = []
        metrics = Metrics(CollectorRegistry(), FOLLOWER.election, self.feed, self.clock)
        app = Endpoints(
            self.feed,
            self.clock,
            alive=lambda: self.is_alive,
            is_started=lambda: self.is_started,
            expose=metrics.expose,
            history=lambda: self.history,
            ready_when=ready_when,
        ).app()
        self.server = HttpServer(bind("127.0.0.1", 0), app, self.clock)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.server.port}")

    async def status_of(self, path: str) -> int:
        return (await self.client.get(path)).status_code

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with self.client, asyncio.TaskGroup() as group:
            self.task = group.create_task(self.server.run())
            try:
                yield
            finally:
                self.task.cancel()


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    async with rig.serving():
        yield rig


def lead(rig: Rig, seconds: float = LONG, token: int = 8123) -> None:
    rig.feed.publish(leading(rig.clock.now() + seconds, token))


async def test_leader_and_follower_answer_by_status_code(rig: Rig) -> None:
    assert [await rig.status_of(path) for path in ("/leader", "/follower", "/status")] == [
        503,
        200,
        200,
    ]
    lead(rig)
    assert [await rig.status_of(path) for path in ("/leader", "/follower", "/status")] == [
        200,
        503,
        200,
    ]


async def test_the_body_is_the_status_document(rig: Rig) -> None:
    lead(rig, seconds=4.5)
    for path in ("/leader", "/follower", "/status"):
        answer = await rig.client.get(path)
        document = answer.json()
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert document["token"] == document["leader"]["token"] == 8123
        assert document["key"] == "/resources/election/694d7f2a"
        assert document["valid_until_boottime"] == rig.clock.now() + 4.5
        assert document["valid_until"] == "2027-01-15T08:00:04.500Z"


async def test_a_leader_whose_deadline_has_passed_is_refused_at_once(rig: Rig) -> None:
    lead(rig, seconds=5)
    assert await rig.status_of("/leader") == 200
    rig.clock.advance(5)  # and nobody publishes anything
    answer = await rig.client.get("/leader")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "deadline_passed"
    assert "token" not in answer.json()
    assert await rig.status_of("/follower") == 200
    assert (await rig.client.get("/")).json()["name"] == ""


@pytest.mark.parametrize(
    ("changes", "ready", "why"),
    [
        ({}, True, "ready"),
        ({"role": Role.LEADER, "deadline": 2000.0}, True, "ready"),
        ({"is_registered": False}, False, "not registered as a candidate (waiting)"),
        (
            {"is_registered": False, "is_paused": True},
            True,
            "",
        ),
        ({"link": Link.SUSPENDED}, False, "etcd has not answered lately (link suspended"),
        ({"link": Link.LOST, "reason": Reason.STARTING}, False, "(link lost, starting)"),
        ({"role": Role.OBSERVER, "is_registered": False}, True, "ready"),
        ({"role": Role.OBSERVER, "link": Link.LOST}, False, "etcd has not answered lately"),
        ({"role": Role.LEADER, "deadline": NEVER}, False, "(link suspended, deadline_passed)"),
    ],
)
async def test_ready_is_who_stands_and_hears_from_etcd(
    rig: Rig, changes: dict[str, Any], ready: bool, why: str
) -> None:
    rig.feed.publish(replace(FOLLOWER, **changes))
    answer = await rig.client.get("/readyz")
    assert answer.status_code == (200 if ready else 503)
    assert why in answer.text


async def test_ready_can_mean_leader() -> None:
    rig = Rig(ready_when="leader")
    async with rig.serving():
        answer = await rig.client.get("/readyz")
        assert answer.status_code == 503
        assert "not the leader (waiting)" in answer.text
        lead(rig)
        assert await rig.status_of("/readyz") == 200


async def test_alive_depends_on_the_loops_and_the_first_status_but_never_on_etcd(rig: Rig) -> None:
    rig.feed.publish(replace(FOLLOWER, link=Link.LOST, is_registered=False))
    assert await rig.status_of("/livez") == 200
    rig.is_alive = False
    answer = await rig.client.get("/livez")
    assert (answer.status_code, answer.text) == (
        503,
        "not alive: the renewal loop stands still\n",
    )
    rig.is_alive, rig.is_started = True, False
    answer = await rig.client.get("/livez")
    assert answer.status_code == 503
    assert "the first status is not written yet" in answer.text


async def test_history_tells_terms_with_their_reasons(rig: Rig) -> None:
    rig.history = [
        TermRecord(5, "a", 1_800_000_000.0, 1_800_000_010.25, "handover"),
        TermRecord(9, "b", 1_800_000_010.5),
        TermRecord(12, "c", 1e300, before="session_lost"),
    ]
    assert (await rig.client.get("/history")).json() == [
        {
            "leader": "a",
            "token": 5,
            "from": "2027-01-15T08:00:00.000Z",
            "until": "2027-01-15T08:00:10.250Z",
            "reason": "handover",
        },
        {
            "leader": "b",
            "token": 9,
            "from": "2027-01-15T08:00:10.500Z",
            "until": None,
            "reason": "session_lost",
        },
        {"leader": "c", "token": 12, "from": None, "until": None, "reason": ""},
    ]


async def test_the_root_speaks_as_the_old_leader_electors_did(rig: Rig) -> None:
    rig.history = [TermRecord(8100, "master-1", 1_799_999_000.0)]
    answer = await rig.client.get("/", headers={"accept": "*/*"})
    assert answer.json() == {
        "name": "master-1",
        "is_leader": False,
        "leader": "master-1",
        "node": "master-0",
        "token": 8100,
        "lease_remaining": 0.0,
        "last_update": "2027-01-15T07:43:20.000Z",
        "timestamp": "2027-01-15T08:00:00.000Z",
    }
    lead(rig, seconds=4)
    document = (await rig.client.get("/")).json()
    assert (document["name"], document["is_leader"]) == ("master-0", True)
    assert document["lease_remaining"] == 4.0
    assert document["last_update"] == "2027-01-15T08:00:00.512Z"


async def test_a_browser_gets_the_page_which_runs_nothing_but_its_own(rig: Rig) -> None:
    answer = await rig.client.get("/", headers={"accept": "text/html,application/xml;q=0.9"})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text == (Path(sidecar.__file__).parent / "page" / "index.html").read_text()
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    for tag in ("script", "style"):
        hashes = re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", policy[f"{tag}-src"])
        assert len(hashes) == len(re.findall(f"<{tag}", answer.text)) == 1
    assert not re.search(r"(src|href)=\"(https?:)?//", answer.text)
    assert not re.search(r"\s(on\w+|style)=\"", answer.text)  # the policy would refuse them


@pytest.mark.parametrize("path", PATHS)
async def test_only_reading_is_allowed(rig: Rig, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = await rig.client.request(method, path)
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    options = await rig.client.options(path)
    assert (options.status_code, options.content) == (204, b"")
    assert set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    head = await rig.client.head(path)
    assert (head.status_code, head.content) == (503 if path == "/leader" else 200, b"")


async def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    assert await rig.status_of("/nothing") == 404
    assert await rig.status_of("/leader/../../etc/passwd") == 404


async def test_answers_carry_the_date_of_the_moment(rig: Rig) -> None:
    for _ in range(2):
        answer = await rig.client.get("/status")
        assert parsedate_to_datetime(answer.headers["date"]).timestamp() == rig.clock.wall()
        assert "server" not in answer.headers
        rig.clock.advance(60)


async def test_metrics_are_served_in_the_format_asked_for(rig: Rig) -> None:
    answer = await rig.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'leader_election_master_status{name="/resources/election"} 0.0' in answer.text
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = await rig.client.get("/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    accept = {"accept": "application/openmetrics-text; version=x.y, text/plain; version=z"}
    assert (await rig.client.get("/metrics", headers=accept)).status_code == 200


async def test_garbage_is_answered_and_not_logged(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.server.port)
    writer.write(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()
    assert caplog.records == []


class Events:
    """Reads an event stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def line(self, prefix: str) -> str:
        async for line in self._lines:
            if line.startswith(prefix):
                return line.removeprefix(prefix)
        raise EOFError

    async def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(await self.line("data: "))
        return document


@contextlib.asynccontextmanager
async def subscribed(rig: Rig) -> AsyncIterator[Events]:
    async with rig.client.stream("GET", "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Events(answer.aiter_lines())


async def test_events_tell_the_state_at_once_and_then_each_change(rig: Rig) -> None:
    async with subscribed(rig) as stream:
        assert (await stream.status())["role"] == "follower"
        lead(rig)
        first = await stream.status()
        assert (first["role"], first["token"]) == ("leader", 8123)
        rig.feed.publish(stepped_down(rig.feed.value))
        assert (await stream.status())["reason"] == "shutdown"


async def test_a_renewal_is_no_event(rig: Rig) -> None:
    async with subscribed(rig) as stream:
        await stream.status()
        lead(rig)
        assert (await stream.status())["role"] == "leader"
        for renewal in range(20):
            lead(rig, LONG + renewal)
            await asyncio.sleep(0)  # let the stream see each of them
        rig.feed.publish(stepped_down(rig.feed.value))
        assert (await stream.status())["role"] == "follower"


async def test_the_end_of_a_lease_is_an_event_though_nobody_publishes_it(rig: Rig) -> None:
    async with subscribed(rig) as stream:
        await stream.status()
        lead(rig, seconds=0.2)
        assert (await stream.status())["role"] == "leader"
        rig.clock.advance(0.2)
        assert (await stream.status())["reason"] == "deadline_passed"


@contextlib.asynccontextmanager
async def stream_of(
    stream: events.EventStream,
) -> AsyncIterator[tuple[asyncio.Queue[dict[str, Any]], Callable[[], None]]]:
    """Run the ASGI application without a server; yield what it sends, and how to leave it."""
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    left = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.put_nowait(message)

    async with asyncio.TaskGroup() as group:
        group.create_task(stream({"type": "http", "method": "GET"}, receive, send))
        try:
            yield sent, left.set
        finally:
            left.set()


async def test_a_silent_stream_has_a_heartbeat() -> None:
    stream = events.EventStream(Feed(FOLLOWER), SetClock(), heartbeat=0.01)
    async with stream_of(stream) as (sent, _):
        while (await sent.get()).get("body") != b": still here\n\n":
            pass


async def test_subscribers_are_bounded_and_make_room_when_they_leave(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = events.EventStream(rig.feed, rig.clock, limit=2)
    async with stream_of(stream) as (first, leave), stream_of(stream) as (second, _):
        for sent in (first, second):
            assert (await sent.get())["status"] == 200
        async with stream_of(stream) as (third, _):
            assert (await third.get())["status"] == 503
        leave()
        await until(lambda: stream.subscribers == 1, "the place is free")
        async with stream_of(stream) as (third, _):
            assert (await third.get())["status"] == 200
    assert stream.subscribers == 0


async def test_a_client_that_hangs_up_is_forgotten(rig: Rig) -> None:
    async with subscribed(rig) as stream:
        await stream.status()
        assert len(rig.server._server.server_state.tasks) == 1
    await until(lambda: not rig.server._server.server_state.tasks, "the stream has ended")


async def test_the_server_ends_at_once_with_streams_open_and_clients_that_do_not_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    with socket.socket() as idle, socket.socket() as silent:
        async with rig.serving():
            for client in (idle, silent):
                client.connect(("127.0.0.1", rig.server.port))
            silent.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            async with subscribed(rig) as stream:
                await stream.status()
                state = rig.server._server.server_state
                await until(lambda: len(state.connections) == 3, "all are connected")
                await until(lambda: len(state.tasks) == 2, "two of them subscribed")
                big = tuple("x" * 1000 for _ in range(250))
                for change in range(200):  # until it stops fitting into the sockets' buffers
                    rig.feed.publish(replace(FOLLOWER, transitions=change, candidates=big))
                    await stream.status()
                rig.task.cancel()
                with pytest.raises((httpx.HTTPError, EOFError)):
                    await stream.line("the stream ends before such a line")
            await until(lambda: not state.tasks, "no stream is left")
        assert caplog.records == []
    # The port is free again.
    bind("127.0.0.1", rig.server.port).close()


async def test_a_server_at_rest_wakes_for_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await rig.status_of("/livez") == 200
    await rig.client.aclose()
    state = rig.server._server.server_state
    await until(lambda: not state.connections, "the client has hung up")
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    wakes: list[float | None] = []
    select = selector.select

    def counted(timeout: float | None = None) -> Any:
        wakes.append(timeout)
        return select(timeout)

    monkeypatch.setattr(selector, "select", counted)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await asyncio.Event().wait()
    assert len(wakes) < 5


async def test_the_signals_stay_the_programs() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    rig = Rig()
    async with rig.serving():
        assert await rig.status_of("/livez") == 200
        assert {number: signal.getsignal(number) for number in before} == before


def test_a_taken_port_is_named() -> None:
    with contextlib.closing(bind("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"--http: cannot listen on 127.0.0.1:{port}: addr"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid", "::ffff:203.0.113.1"])
def test_an_address_that_is_not_ours_is_named(host: str) -> None:
    with pytest.raises(ConfigError, match="--http: cannot listen on"):
        bind(host, 0)


def test_without_a_host_both_families_are_served() -> None:
    with contextlib.closing(bind("", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port)).close()
        if listener.family == socket.AF_INET6:
            socket.create_connection(("::1", port)).close()


def test_a_port_that_its_last_owner_left_in_time_wait_can_be_taken_at_once() -> None:
    reserved = ReservedPort()
    try:
        for _ in range(2):
            listener = bind("127.0.0.1", reserved.number)
            listener.setblocking(True)
            client = socket.create_connection(("127.0.0.1", reserved.number))
            served, _ = listener.accept()
            served.close()  # the side that closes first waits
            client.close()
            listener.close()
    finally:
        reserved.close()
