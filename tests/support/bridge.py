"""A TCP proxy in front of a server that can lose, hold or delay bytes in either direction.

One thread with a selector does all the work, and every verb runs in that thread: when a verb
returns, it is in force, and not one byte passes that it forbids. TLS goes through untouched.

Verbs: `drop` closes connections; `pause` keeps bytes back, nothing is lost; `blackhole` takes bytes
and throws them away; `refuse` closes the listening port; `delay` lets every byte wait.
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from tests.support.procs import LOOPBACK, ReservedPort
from tests.support.relay import CHUNK, Connection, Pipe, Way

__all__ = ["Bridge", "Way"]

MOST_QUEUED = 1024 * 1024  # bytes per direction; above it the sender is made to wait
VERB_TIMEOUT = 10.0  # seconds; only a dead bridge needs them


class Bridge:
    """The proxy; a context manager. Clients connect to `endpoint` instead of the server."""

    def __init__(self, target_host: str, target_port: int, *, scheme: str = "http") -> None:
        self._target = (target_host, target_port)
        self._scheme = scheme
        self._reserved = ReservedPort()
        self.port: int = self._reserved.number
        self._listener: socket.socket | None = None
        self._connections: set[Connection] = set()
        self._accepted = 0
        self._held = Way(0)
        self._lost = Way(0)
        self._delay = 0.0
        self._closing = False
        self._verbs: deque[Callable[[], None]] = deque()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"bridge-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        return f"{self._scheme}://{LOOPBACK}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def accepted(self) -> int:
        """How many connections were accepted since the bridge was made."""
        return self._accepted

    def drop(self) -> None:
        """Close all connections; new ones are taken as before."""
        self._do(self._drop)

    def pause(self, way: Way = Way.BOTH) -> None:
        """Stop passing bytes; connections stay open, new ones are accepted, nothing is lost."""
        self._do(lambda: self._set(held=self._held | way))

    def resume(self, way: Way = Way.BOTH) -> None:
        """Pass on what was held, and all that follows."""
        self._do(lambda: self._set(held=self._held & ~way))

    def blackhole(self, way: Way = Way.BOTH) -> None:
        """Accept everything and pass nothing; nobody sees an error or an end."""
        self._do(lambda: self._set(lost=self._lost | way))

    def unblackhole(self, way: Way = Way.BOTH) -> None:
        """Pass bytes again; connections that lost some are closed, as their streams are broken."""
        self._do(lambda: self._unblackhole(way))

    def lose_replies(self) -> None:
        """Requests arrive and are obeyed, and nobody hears of it."""
        self.blackhole(Way.REPLIES)

    def hold_replies(self) -> None:
        """Requests arrive and are obeyed; the answers come with `resume`."""
        self.pause(Way.REPLIES)

    def refuse(self) -> None:
        """Close the listening port: new connections are refused, open ones stay."""
        self._do(self._stop_listening)

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._do(self._listen)

    def delay(self, seconds: float) -> None:
        """Let every byte read from now on wait so long, in each direction; 0 ends it."""
        self._do(lambda: self._set(delay=seconds))

    def close(self) -> None:
        """Close everything and end the thread; a second time does nothing."""
        if not self._thread.is_alive():
            return
        self._do(self._shut_down)
        self._thread.join(VERB_TIMEOUT)
        self._wake_in.close()
        self._wake_out.close()
        self._reserved.close()

    # From here on: only the bridge's thread, `_do` and the constructor apart.

    def _do(self, verb: Callable[[], None]) -> None:
        """Have the thread run the verb, and wait until it has."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                verb()
            except OSError as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        self._verbs.append(run)
        self._wake_out.send(b"\0")
        done.result(VERB_TIMEOUT)

    def _set(
        self, *, held: Way | None = None, lost: Way | None = None, delay: float | None = None
    ) -> None:
        self._held = self._held if held is None else held
        self._lost = self._lost if lost is None else lost
        self._delay = self._delay if delay is None else delay

    def _unblackhole(self, way: Way) -> None:
        self._lost &= ~way
        for connection in [one for one in self._connections if one.lossy]:
            self._forget(connection)

    def _drop(self) -> None:
        for connection in list(self._connections):
            self._forget(connection)

    def _shut_down(self) -> None:
        self._closing = True
        self._stop_listening()
        self._drop()

    def _listen(self) -> None:
        if self._listener is None:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((LOOPBACK, self.port))
            listener.listen(128)
            listener.setblocking(False)
            self._listener = listener

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.close()

    def _run(self) -> None:
        while not self._closing:
            ready = self._wait_for_work()
            if self._wake_in.fileno() in ready:
                self._wake_in.recv(CHUNK)
            if self._verbs:  # they may close sockets: what was ready may not be any more
                while self._verbs:
                    self._verbs.popleft()()
                continue
            if self._listener is not None and self._listener.fileno() in ready:
                self._take(self._listener)
            for connection in list(self._connections):
                self._serve(connection, ready)

    def _wait_for_work(self) -> set[int]:
        """Return the file descriptors that can be read or written, after at least one can."""
        now = time.monotonic()
        wanted: dict[socket.socket, int] = {self._wake_in: selectors.EVENT_READ}
        if self._listener is not None:
            wanted[self._listener] = selectors.EVENT_READ
        dues = []
        for connection in self._connections:
            if not connection.connected:
                wanted[connection.server] = selectors.EVENT_WRITE
                continue
            for pipe in connection.pipes:
                if self._may_read(pipe):
                    wanted[pipe.source] = wanted.get(pipe.source, 0) | selectors.EVENT_READ
                if self._may_write(pipe):
                    if pipe.due <= now:
                        wanted[pipe.sink] = wanted.get(pipe.sink, 0) | selectors.EVENT_WRITE
                    else:
                        dues.append(pipe.due)
        timeout = max(0.0, min(dues) - now) if dues else None
        return _select(wanted, timeout)

    def _may_read(self, pipe: Pipe) -> bool:
        return not pipe.ended and pipe.way not in self._held and pipe.queued < MOST_QUEUED

    def _may_write(self, pipe: Pipe) -> bool:
        return pipe.has_work and pipe.way not in self._held | self._lost

    def _take(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # it has gone away again
        self._accepted += 1
        connection = Connection(client, self._target)
        try:
            connection.connect()
        except OSError:
            connection.close()  # nobody listens behind
        else:
            self._connections.add(connection)

    def _serve(self, connection: Connection, ready: set[int]) -> None:
        try:
            if not connection.connected:
                connection.look_whether_connected(ready)
                return
            for pipe in connection.pipes:
                if pipe.source.fileno() in ready and self._may_read(pipe):
                    due = time.monotonic() + self._delay
                    pipe.read(due, keep=pipe.way not in self._lost)
                if self._may_write(pipe):
                    pipe.write(time.monotonic())
        except OSError:
            self._forget(connection)
        else:
            if connection.finished:
                self._forget(connection)


def _select(wanted: dict[socket.socket, int], timeout: float | None) -> set[int]:
    with selectors.PollSelector() as selector:
        for end, events in wanted.items():
            selector.register(end, events)
        return {key.fd for key, _ in selector.select(timeout)}
