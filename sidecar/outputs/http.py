"""The HTTP server: who leads, answered by status code. It changes nothing.

uvicorn serves, without its signal handlers, its access log and its tick of 100 ms: at rest this
costs no processor time at all. What is served stands in `sidecar.outputs.endpoints`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from email.utils import formatdate

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sidecar.election.ports import Clock
from sidecar.errors import ConfigError
from sidecar.listening import listen, where

_BACKLOG = 128
_CONNECTIONS = 512  # more at once are answered 503
_SILENT_CLIENT = 30_000  # milliseconds that a client may leave data unacknowledged
_LAST_WORDS = 0.2  # seconds for the connections that are open at the end


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; without a host, on all addresses of both families.

    Raises:
        ConfigError: the port is taken, or the address is not ours.
    """
    try:
        listener = listen(host, port, backlog=_BACKLOG)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        problem = f"--http: cannot listen on {where(host, port)}: {why}"
        raise ConfigError([f"{problem}; give another [HOST]:PORT, e.g. :4041"]) from error
    # Inherited by what is accepted: clients that stopped reading are dropped.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENT_CLIENT)
    return listener


class HttpServer:
    """Serves an application on a socket made by `bind`; with `tls` over HTTPS."""

    def __init__(
        self,
        listener: socket.socket,
        app: ASGIApp,
        clock: Clock,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        config = uvicorn.Config(
            _Dated(app, clock),
            http=H11Protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            log_level="error",  # a port scanner's garbage is no warning
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS,
        )
        config.load()
        config.ssl = tls
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until cancelled; then close the listener and every connection, promptly."""
        await self._server.serve(sockets=[self._listener])


class _Server(uvicorn.Server):
    """uvicorn's server without what a component of a larger program must not have."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program."""
        yield

    async def main_loop(self) -> None:
        """Wait for the end, instead of ticking; what the tick did, `_Dated` does per answer."""
        try:
            await asyncio.Event().wait()
        finally:
            await self._hang_up()

    async def _hang_up(self) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            # What is written already still goes out; an event stream ends as if its client left.
            connection.transport.close()
        await self._last_words()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._last_words()

    async def _last_words(self) -> None:
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=_LAST_WORDS)


class _Dated:
    """Gives every answer its Date, from the clock at that moment."""

    def __init__(self, app: ASGIApp, clock: Clock) -> None:
        self._app = app
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(self._clock.wall(), usegmt=True).encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
            await send(message)

        await self._app(scope, receive, dated)
