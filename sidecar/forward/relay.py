"""A connection that is carried: two flows, each from one socket to the other.

Bulk is moved by the kernel: `splice` from a socket into a pipe and from the pipe into the other
socket, so no byte comes up to Python. A pipe is held only while bytes are in it or come in a row.
Small messages are received and sent, which costs as many calls and no pipe; and so is everything
where there is no `splice`, or no pipe left.

Nothing is read from a source while its sink takes nothing, so what one connection can hold in
memory is bounded by one pipe, or one message, for each direction.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.forward import pipes
from sidecar.forward.meter import ForwardMeter, Tally
from sidecar.forward.pipes import Pipe, Pipes
from sidecar.forward.poller import BROKEN, ENDED, GONE, MARKED, READABLE, WRITABLE, Poller

_COPIED = 1 << 18
"""Bytes that are moved at once where there are no pipes."""

_BULK = 1 << 16
"""Bytes; whoever has so many ready at once sends in bulk."""

_LULL = 1 << 14
"""Bytes; a turn that moved less than this is no bulk any more."""

_TURN = 1 << 20
"""Bytes that a flow may move before others have their turn."""

_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Tools:
    """What all relays share. Only one of them is at work at a time, so one buffer will do."""

    poller: Poller
    pipes: Pipes
    buffer: memoryview

    @classmethod
    def make(cls, poller: Poller, pipes: Pipes) -> Tools:
        """Return them with a buffer that suits: where pipes take the bulk, a small one will do."""
        return cls(poller, pipes, memoryview(bytearray(_BULK if pipes.most else _COPIED)))


class Flow:
    """One direction. Every method may raise `OSError`: the connection is broken then.

    Attributes:
        is_readable: whether the source may have something.
        is_writable: whether the sink may take something.
        is_ending: whether the source is known to send nothing after what is there.
        is_marked: whether the source marks urgent data: a read ends there, `splice` stays there.
        is_done: whether all is over, and the sink was told.
    """

    __slots__ = (
        "_bulk",
        "_held",
        "_is_ended",
        "_pipe",
        "_rest",
        "_sink",
        "_source",
        "_tally",
        "_tools",
        "is_done",
        "is_ending",
        "is_marked",
        "is_readable",
        "is_writable",
    )

    def __init__(
        self, source: socket.socket, sink: socket.socket, tools: Tools, tally: Tally
    ) -> None:
        self.is_readable = self.is_writable = True
        self.is_ending = self.is_marked = self.is_done = False
        self._source, self._sink = source, sink
        self._tools, self._tally = tools, tally
        self._bulk = False
        self._is_ended = False
        self._pipe: Pipe | None = None
        self._rest = b""
        self._held = 0

    def pump(self) -> bool:
        """Move what can be moved now; return whether the turn ended before the bytes did."""
        left = _TURN
        while left > 0:
            if self._held:
                moved = self._empty() if self.is_writable else 0
                left -= moved
                if not moved:
                    return False
            elif self._is_ended:
                self._finish()
                return False
            elif self.is_readable:
                left -= self._fill()
            else:
                self._rest_a_while(moved=_TURN - left)
                return False
        return True

    def drop(self) -> None:
        """Hold nothing any more."""
        if self._pipe is not None:
            self._tools.pipes.give_back(self._pipe, is_empty=self._held == 0)
            self._pipe = None
        self._rest = b""
        self._held = 0

    def hang_up(self) -> None:
        """Let the sink have what it takes of what is held, and tell it that this was all."""
        if not self.is_done:
            if self._held:
                self._empty()
            self._sink.shutdown(socket.SHUT_WR)

    def _fill(self) -> int:
        """Take something from the source; return how much of it the sink has already."""
        if self._bulk and self._pipe is None and not self.is_marked:
            self._pipe = self._tools.pipes.borrow()
        try:
            if self._pipe is None or self.is_marked:
                return self._pass_on()
            return self._suck(self._pipe)
        except BlockingIOError:
            self.is_readable = False
            return 0

    def _suck(self, pipe: Pipe) -> int:
        self._held = os.splice(self._source.fileno(), pipe.write, pipes.SIZE, flags=pipes.FLAGS)
        # Nothing: the end, or a mark with the end behind it. Only reading tells.
        return 0 if self._held else self._pass_on()

    def _pass_on(self) -> int:
        buffer = self._tools.buffer
        size = self._source.recv_into(buffer)
        self._is_ended = size == 0
        self._bulk = size >= _BULK
        # A short read is the last one there is, so that one need not be told so by another. Only
        # an end that was announced is still to be read, and what is behind a mark.
        self.is_readable = size == len(buffer) or self.is_ending or self.is_marked
        sent = self._send(buffer[:size]) if size else 0
        if sent < size:
            self._rest = bytes(buffer[sent:size])
            self._held = size - sent
        return sent

    def _empty(self) -> int:
        """Give the sink what is held; return how much it took."""
        if self._rest:
            sent = self._send(self._rest)
            self._rest = self._rest[sent:]
        elif self._pipe is not None:
            sent = self._splice_out(self._pipe)
        else:
            sent = 0
        self._held -= sent
        return sent

    def _send(self, message: memoryview | bytes) -> int:
        try:
            sent = self._sink.send(message)
        except BlockingIOError:
            self.is_writable = False
            return 0
        self._tally.bytes += sent
        return sent

    def _splice_out(self, pipe: Pipe) -> int:
        try:
            sent = os.splice(pipe.read, self._sink.fileno(), self._held, flags=pipes.FLAGS)
        except BlockingIOError:
            self.is_writable = False
            return 0
        self._tally.bytes += sent
        return sent

    def _rest_a_while(self, *, moved: int) -> None:
        """The source has nothing: others may have the pipe."""
        self._bulk = self._bulk and moved >= _LULL
        if self._pipe is not None:
            self.drop()

    def _finish(self) -> None:
        self._sink.shutdown(socket.SHUT_WR)
        self.is_done = True
        self.drop()


class Relay:
    """Carries one connection until both sides have ended it, or it is closed.

    Args:
        client: accepted; owned from now on.
        upstream: connected; owned from now on.
        meter: counts the bytes.
        on_end: called once, when both sockets are closed.
    """

    __slots__ = ("_back", "_client", "_is_queued", "_on_end", "_poller", "_there", "_upstream")

    def __init__(
        self,
        client: socket.socket,
        upstream: socket.socket,
        tools: Tools,
        *,
        meter: ForwardMeter,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._client, self._upstream = client, upstream
        self._poller = tools.poller
        self._there = Flow(client, upstream, tools, meter.to_leader)
        self._back = Flow(upstream, client, tools, meter.to_client)
        self._on_end = on_end
        self._is_queued = False

    def start(self) -> None:
        """Begin; both sockets may have something already."""
        self._poller.watch(self._client.fileno(), self._client_ready)
        self._poller.watch(self._upstream.fileno(), self._upstream_ready)
        self._pump()

    def close(self) -> None:
        """End it in order: both sides hear that nothing more comes."""
        for flow in (self._there, self._back):
            with contextlib.suppress(OSError):
                flow.hang_up()
        self._end()

    def abort(self) -> None:
        """End it as a broken connection ends, on both sides."""
        for side in (self._client, self._upstream):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._end()

    @property
    def _is_over(self) -> bool:
        return self._client.fileno() < 0

    def _client_ready(self, events: int) -> None:
        _note(events, self._there, self._back)
        self._pump(is_broken=bool(events & BROKEN))

    def _upstream_ready(self, events: int) -> None:
        _note(events, self._back, self._there)
        self._pump(is_broken=bool(events & BROKEN))

    def _pump(self, *, is_broken: bool = False) -> None:
        there, back = self._there, self._back
        try:
            more_there = not there.is_done and there.pump()
            more_back = not back.is_done and back.pump()
        except OSError:
            self.abort()
            return
        if is_broken:  # what it had still sent has been read, as far as there was room for it
            self.abort()
        elif there.is_done and back.is_done:
            self._end()
        elif (more_there or more_back) and not self._is_queued:
            self._is_queued = True
            self._poller.call_again(self._resume)

    def _resume(self) -> None:
        self._is_queued = False
        if not self._is_over:
            self._pump()

    def _end(self) -> None:
        if self._is_over:
            return
        for side in (self._client, self._upstream):
            self._poller.forget(side.fileno())
            side.close()
        self._there.drop()
        self._back.drop()
        self._on_end(self)


def _note(events: int, from_it: Flow, to_it: Flow) -> None:
    """Take in what has happened to a socket."""
    if events & (READABLE | ENDED | GONE):
        from_it.is_readable = True
        if events & MARKED:
            from_it.is_marked = True
        if events & (ENDED | GONE):
            from_it.is_ending = True
    if events & (WRITABLE | GONE):
        to_it.is_writable = True
