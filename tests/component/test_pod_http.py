"""The HTTP client of the API server, on answers that no good server gives."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sidecar.errors import NoAnswer
from sidecar.kube.http import Connection
from tests.support.procs import LOOPBACK
from tests.support.tls import LOOPBACK_NAMES, Authority

pytestmark = pytest.mark.asyncio

REQUEST = b"GET / HTTP/1.1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(folder: Path, serve: Serve) -> AsyncIterator[Connection]:
    """Return a connection to a server that treats each of its connections by `serve`."""
    authority = Authority(folder, "ca")
    pair = authority.issue("server", common_name="server", hosts=LOOPBACK_NAMES)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.cert, pair.key)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(one, LOOPBACK, 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    trusted = ssl.create_default_context(cafile=authority.cert)
    connection = Connection(LOOPBACK, port, lambda: trusted)
    try:
        yield connection
    finally:
        connection.close()
        server.close()
        await server.wait_closed()


def saying(*answers: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return serve


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Len",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000,
    ],
)
async def test_what_is_no_answer_is_told_as_none(tmp_path: Path, answer: bytes) -> None:
    async with served(tmp_path, saying(answer)) as connection:
        with pytest.raises(NoAnswer):
            await connection.send(REQUEST)


async def test_a_hint_before_the_answer_is_no_answer(tmp_path: Path) -> None:
    async with served(tmp_path, saying(b"HTTP/1.1 103 Early\r\n\r\n" + OK)) as connection:
        assert (await connection.send(REQUEST)).document() == {}


async def test_after_connection_close_the_next_request_connects_anew(tmp_path: Path) -> None:
    last = OK.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    async with served(tmp_path, saying(last, OK)) as connection:
        assert (await connection.send(REQUEST)).status == 200
        assert (await connection.send(REQUEST)).headers["connection"] == "close"


async def test_nobody_who_listens_is_no_answer(tmp_path: Path) -> None:
    async with served(tmp_path, saying()) as connection:
        pass
    with pytest.raises(NoAnswer):
        await connection.send(REQUEST)


async def test_a_cancelled_request_leaves_no_half_read_answer_behind(tmp_path: Path) -> None:
    first = True
    arrived = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal first
        is_first, first = first, False
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:20] if is_first else OK)
        await writer.drain()
        if is_first:
            arrived.set()
            await reader.read()

    async with served(tmp_path, serve) as connection, asyncio.TaskGroup() as group:
        task = group.create_task(connection.send(REQUEST))
        await arrived.wait()
        task.cancel()
        await asyncio.wait([task])
        assert (await connection.send(REQUEST)).document() == {}
