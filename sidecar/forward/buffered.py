"""A connection that is carried without `splice`: each byte is copied through a buffer.

For a Python or a kernel (a sandbox) that has no `splice`. Slower, the same in all else.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from sidecar.forward.meter import ForwardMeter, Tally
from sidecar.forward.relay import RESET, Tools


class Relay:
    """As `relay.Relay`, on the event loop's own transports."""

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        tools: Tools,
        *,
        meter: ForwardMeter,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._poller = tools.poller
        self._spawn = tools.spawn
        self._sides = (
            _Side(self, client, tools.buffer, meter.to_leader),
            _Side(self, upstream, tools.buffer, meter.to_client),
        )
        self._sides[0].other, self._sides[1].other = self._sides[1], self._sides[0]
        self._on_end = on_end
        self._open = 2

    def start(self) -> None:
        """Begin, on transports of the loop."""
        self._spawn(self._open_transports())

    def close(self) -> None:
        """End it in order: what is buffered still goes out, without waiting for it here."""
        for side in self._sides:
            side.close()

    def abort(self) -> None:
        """End it as a broken connection ends, on both sides."""
        for side in self._sides:
            side.abort()

    def side_is_over(self) -> None:
        """Count the sides that are left; none: the connection has ended."""
        self._open -= 1
        if self._open == 0:
            self._on_end(self)

    async def _open_transports(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            for side in self._sides:
                self._poller.forget(side.socket.fileno())
                await loop.connect_accepted_socket(side.itself, side.socket)
        except (OSError, asyncio.CancelledError):
            self.abort()
            raise
        for side in self._sides:
            side.begin()


class _Side(asyncio.BufferedProtocol):
    """One of the two sockets: what it reads goes to the other."""

    other: _Side

    def __init__(self, relay: Relay, own: socket.socket, buffer: memoryview, tally: Tally) -> None:
        self.socket = own
        self._relay = relay
        self._buffer = buffer
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._has_ended = False
        self._is_over = False

    def itself(self) -> _Side:
        """Return this side, as a factory of protocols."""
        return self

    def begin(self) -> None:
        """Read from now on: the other side can take it."""
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Send what is buffered, then close."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._over()

    def abort(self) -> None:
        """Reset the connection."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if self._transport is not None:
            self._transport.abort()
        else:
            self._over()

    # --- called by the loop -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the other side, which may not be there yet."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream socket
        self._transport = transport
        transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the buffer that all share: it is emptied before the next one reads."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self._tally.bytes += nbytes
        if self.other._transport is not None:  # noqa: SLF001 - its twin
            self.other._transport.write(bytes(self._buffer[:nbytes]))  # noqa: SLF001

    def eof_received(self) -> bool:
        """Pass the end on; the other direction may go on."""
        self._has_ended = True
        if self.other._has_ended:  # noqa: SLF001
            self._relay.close()
        elif self.other._transport is not None:  # noqa: SLF001
            self.other._transport.write_eof()  # noqa: SLF001
        return True

    def pause_writing(self) -> None:
        """Read nothing from the other side: this one takes nothing."""
        if self.other._transport is not None:  # noqa: SLF001
            self.other._transport.pause_reading()  # noqa: SLF001

    def resume_writing(self) -> None:
        """Read on."""
        if self.other._transport is not None:  # noqa: SLF001
            self.other._transport.resume_reading()  # noqa: SLF001

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side in the same way."""
        self._over()
        if exc is None:
            self.other.close()
        else:
            self.other.abort()

    def _over(self) -> None:
        if not self._is_over:
            self._is_over = True
            self.socket.close()
            self._relay.side_is_over()
