"""What a bridge is made of: connections, each of two pipes that hold bytes until they may pass.

Nothing here decides anything: `bridge.Bridge` says what may be read and written, and when.
"""

import contextlib
import enum
import socket
from collections import deque

CHUNK = 64 * 1024


class Way(enum.Flag):
    """A direction through the bridge."""

    REQUESTS = enum.auto()  # client to server
    REPLIES = enum.auto()  # server to client
    BOTH = REQUESTS | REPLIES


class Pipe:
    """One direction of one connection: what was read and may not be written yet."""

    def __init__(self, way: Way, source: socket.socket, sink: socket.socket) -> None:
        self.way = way
        self.source = source
        self.sink = sink
        self.waiting: deque[tuple[float, bytes]] = deque()  # (due, bytes)
        self.queued = 0
        self.ended = False  # the source has no more
        self.lossy = False  # bytes were thrown away: the stream is broken for good
        self.shut = False  # the end was passed on

    @property
    def has_work(self) -> bool:
        return bool(self.waiting) or (self.ended and not self.shut)

    @property
    def due(self) -> float:
        return self.waiting[0][0] if self.waiting else 0.0

    def read(self, due: float, *, keep: bool) -> None:
        try:
            data = self.source.recv(CHUNK)
        except BlockingIOError:
            return
        except ConnectionError:
            if keep:
                raise
            data = b""  # a black hole does not tell the other side
        if not data:
            self.ended = True
        elif keep:
            self.waiting.append((due, data))
            self.queued += len(data)
        else:
            self.lossy = True

    def write(self, now: float) -> None:
        while self.waiting and self.waiting[0][0] <= now:
            due, data = self.waiting.popleft()
            try:
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            self.queued -= sent
            if sent < len(data):
                self.waiting.appendleft((due, data[sent:]))
                return
        if self.ended and not self.waiting and not self.shut:
            self.shut = True
            self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """A client's socket, the socket to the server behind, and the two pipes between them."""

    def __init__(self, client: socket.socket, target: tuple[str, int]) -> None:
        self._target = target
        self.client = client
        self.server = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET)
        for end in (client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pipes = (
            Pipe(Way.REQUESTS, client, self.server),
            Pipe(Way.REPLIES, self.server, client),
        )
        self.connected = False

    @property
    def lossy(self) -> bool:
        return any(pipe.lossy for pipe in self.pipes)

    @property
    def finished(self) -> bool:
        return all(pipe.shut for pipe in self.pipes)

    def connect(self) -> None:
        with contextlib.suppress(BlockingIOError):  # the usual case: it goes on by itself
            self.server.connect(self._target)

    def look_whether_connected(self, ready: set[int]) -> None:
        if self.server.fileno() in ready:
            error = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "the server behind the bridge cannot be reached")
            self.connected = True

    def close(self) -> None:
        self.client.close()
        self.server.close()
