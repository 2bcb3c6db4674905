"""One HTTPS connection that is kept open, and just enough of HTTP/1.1 for the API server.

Nothing is pooled and nothing is sent ahead: one request, one answer. Over a connection that was
open already, a request is sent a second time if the server hung up without a word, as it does with
idle ones. So every request must be one that may arrive twice.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import NoAnswer

_LINE_LIMIT = 64 * 1024  # bytes of one line of a head
_HEAD_LIMIT = 100  # lines
_BODY_LIMIT = 8 * 1024 * 1024  # bytes; etcd keeps objects below 2 MiB
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
_SILENCE = 20_000  # milliseconds that sent data may stay unacknowledged
_NO_BODY = (204, 304)
_FINAL = 200

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; the names of headers are in lower case."""

    status: int
    phrase: str
    headers: Mapping[str, str]
    body: bytes

    def document(self) -> Any:
        """Return the JSON in it.

        Raises:
            ValueError: there is none.
        """
        return json.loads(self.body)


class HungUp(NoAnswer):
    """The connection ended before a single byte of an answer."""


class Connection:
    """A connection to one server, made when it is needed."""

    def __init__(self, host: str, port: int, tls: Callable[[], ssl.SSLContext]) -> None:
        """Describe it; `tls` is asked at each connect."""
        self._host = host
        self._port = port
        self._tls = tls
        self._streams: _Streams | None = None
        name = f"[{host}]" if ":" in host else host
        self.authority = f"{name}:{port}"

    async def send(self, request: bytes) -> Answer:
        """Send a request, and again if an idle connection turns out to have ended.

        To be bounded by the caller. However it ends without an answer, the connection is closed.

        Raises:
            NoAnswer: the request may or may not have arrived.
        """
        if self._streams is not None and _has_ended(*self._streams):
            self.close()
        was_open = self._streams is not None
        try:
            return await self._exchange(request)
        except HungUp:
            if not was_open:
                raise
        return await self._exchange(request)

    def close(self) -> None:
        """Hang up; the next request connects anew."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, request: bytes) -> Answer:
        is_answered = False
        try:
            reader, writer = self._streams = self._streams or await self._connect()
            writer.write(request)
            await writer.drain()
            answer = await _read(reader)
            is_answered = answer.headers.get("connection", "").lower() != "close"
        except ConnectionError as exc:
            raise HungUp(str(exc) or type(exc).__name__) from exc
        except (OSError, EOFError, ValueError) as exc:
            raise NoAnswer(str(exc) or type(exc).__name__) from exc
        else:
            return answer
        finally:
            if not is_answered:
                self.close()

    async def _connect(self) -> _Streams:
        reader, writer = await asyncio.open_connection(
            self._host,
            self._port,
            ssl=self._tls(),
            server_hostname=self._host,
            limit=_LINE_LIMIT,
        )
        _notice_silence(writer.get_extra_info("socket"))
        return reader, writer


def _has_ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return reader.at_eof() or writer.is_closing()


def _notice_silence(connection: socket.socket) -> None:
    """Have the kernel end a connection whose other side has vanished without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)


async def _read(reader: asyncio.StreamReader) -> Answer:
    """Read one answer.

    Raises:
        HungUp: there was none.
        ValueError: it is not HTTP, or too large.
        EOFError: it ends too early.
    """
    status, phrase = _status_line(await reader.readline())
    headers = await _headers(reader)
    while status < _FINAL:  # 100 and the like come before the answer
        status, phrase = _status_line(await reader.readline())
        headers = await _headers(reader)
    body = b"" if status in _NO_BODY else await _body(reader, headers)
    return Answer(status, phrase, headers, body)


def _status_line(line: bytes) -> tuple[int, str]:
    if not line:
        raise HungUp("hung up without an answer")
    version, _, rest = line.decode("latin-1").strip().partition(" ")
    code, _, phrase = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (code.isascii() and code.isdigit()):
        raise ValueError("the answer is not HTTP/1.1")
    return int(code), phrase


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_HEAD_LIMIT):
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the answer ends within its head")
        if line in (b"\r\n", b"\n"):
            return headers
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    raise ValueError("the answer's head is too long")


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return await _chunks(reader)
    return await reader.readexactly(_size(headers.get("content-length", ""), 10))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := _size((await reader.readline()).decode("latin-1").partition(";")[0], 16):
        body += await reader.readexactly(size)
        if len(body) > _BODY_LIMIT:
            raise ValueError("the answer is too large")
        await reader.readline()
    await _headers(reader)  # trailers
    return body


def _size(text: str, base: int) -> int:
    size = int(text.strip(), base)  # an answer without a length is none of the API server's
    if not 0 <= size <= _BODY_LIMIT:
        raise ValueError("the answer is too large")
    return size
