"""Accepts clients: not more than there is room for, and not by starving the rest of the process."""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections.abc import Callable, Sequence

from sidecar.errors import ConfigError
from sidecar.forward.caller import Ends, keep_alive, name_of
from sidecar.forward.rules import Rule
from sidecar.listening import listen, where

log = logging.getLogger(__name__)

_BACKLOG = 1024
_AT_ONCE = 64
_PAUSE = 0.1  # seconds without accepting, when the machine has run out of something
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_KEPT_BACK = 128
"""Descriptors that the sidecar itself needs at most: etcd, HTTP, the status files."""

_PER_CONNECTION = 4
"""Descriptors: two sockets, and as much again for pipes."""


def bind(rules: Sequence[Rule]) -> list[socket.socket]:
    """Return a socket for each rule, in order.

    Raises:
        ConfigError: some ports cannot be listened on; with all of them.
    """
    listeners: list[socket.socket] = []
    problems = []
    for rule in rules:
        host, port = rule.listen.host, rule.listen.port
        try:
            listener = listen(host, port, backlog=_BACKLOG)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            problems.append(
                f"--forward: cannot listen on {where(host, port)}: {why}; give another port before "
                f"the =, e.g. {port + 1}={rule.port}"
            )
        else:
            keep_alive(listener)  # inherited by what is accepted
            listeners.append(listener)
    if problems:
        for listener in listeners:
            listener.close()
        raise ConfigError(problems)
    return listeners


def room_for(connections: int) -> int:
    """Allow this process so many connections, as far as it may; return how many it has room for.

    What the election needs is kept back: a forwarder that is overrun must not cost a term.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _KEPT_BACK + _PER_CONNECTION * connections
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = max((soft - _KEPT_BACK) // _PER_CONNECTION, 1)
    if room < connections:
        log.warning(
            "too few file descriptors for --forward-max-connections=%d, taking %d; "
            "raise the limit (ulimit -Hn) of now %d to %d",
            connections,
            room,
            soft,
            wanted,
        )
    return min(room, connections)


class Listener:
    """Accepts on one socket.

    Args:
        listening: closed by `close`.
        on_client: called with each client, and the ends of its connection.
        on_exhausted: called each time that one had to be left in the backlog.
    """

    def __init__(
        self,
        listening: socket.socket,
        on_client: Callable[[socket.socket, Ends], None],
        on_exhausted: Callable[[], None],
    ) -> None:
        self.address: tuple[str, int] = listening.getsockname()[:2]
        self._socket = listening
        self._on_client = on_client
        self._on_exhausted = on_exhausted
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Accept from now on."""
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Accept nobody any more; who is in the backlog is told so."""
        if self._pause is not None:
            self._pause.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _EXHAUSTED:
                    self._stand_back()
                    return
                continue  # that one client was gone already
            client.setblocking(False)
            self._on_client(client, (name_of(address), name_of(client.getsockname())))

    def _stand_back(self) -> None:
        """Leave clients in the backlog: trying on would be all that this process does."""
        self._on_exhausted()
        self._loop.remove_reader(self._socket.fileno())
        self._pause = self._loop.call_later(_PAUSE, self.open)
