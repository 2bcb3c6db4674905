"""A client between its accept and the moment when the leader is reached.

Nothing is read from it meanwhile: what it sends stays in the kernel's buffer, so no byte is passed
before it is clear to whom, and a leader that cannot be reached costs nothing but time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sidecar.forward.meter import Refusal
from sidecar.forward.poller import ENDED, GONE, Poller
from sidecar.forward.proxy_protocol import plain
from sidecar.forward.routes import Route

Address = tuple[socket.AddressFamily, tuple[Any, ...]]
Name = tuple[str, int]
Ends = tuple[Name, Name]
"""Of a connection: who has begun it, and where to. One end alone is no name for it: the kernel
gives the same address and port to several, where they go to different places."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_SILENCE, _PROBE_EVERY, _PROBES = 30, 10, 3
_SHARE = 1.0  # seconds for one of several addresses


class TurnedAway(Exception):
    """The client is not carried."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Directions:
    """What callers ask of the forwarder.

    Attributes:
        route: says where the leader is, at this moment.
        resolve: finds the addresses of a route and a port, in the order of trying; it may raise
            `TurnedAway`.
        outgoing: the ends of what connects, or is connected, to a leader; who comes from one of
            these to the other comes from here.
        wait: seconds to reach a leader in.
    """

    poller: Poller
    route: Callable[[], Route | None]
    resolve: Callable[[Route, int], Awaitable[list[Address]]]
    outgoing: set[Ends]
    wait: float


@dataclass(frozen=True, slots=True)
class Reached:
    """A connection to the leader, the way that it took, and its ends in `outgoing`."""

    upstream: socket.socket
    route: Route
    ends: Ends


class Caller:
    """One client that wants to reach the leader."""

    def __init__(self, client: socket.socket, port: int, directions: Directions) -> None:
        self.port = port
        self._client = client
        self._directions = directions
        self._news = asyncio.Event()
        self._is_gone = False
        self._is_answered = False
        self._why_not = Refusal.NO_LEADER
        self._tried: Route | None = None
        self._attempt: socket.socket | None = None
        self._ends: Ends = (("", 0), ("", 0))  # of the attempt

    def wake(self) -> None:
        """Tell it that the leader may have changed; a way that is no way any more ends at once."""
        if self._attempt is not None and self._directions.route() != self._tried:
            self._give_up()
        self._news.set()

    async def reach(self) -> Reached:
        """Return a connection to the leader.

        Raises:
            TurnedAway: nobody was reached in time, or the client is gone.
        """
        poller, fd = self._directions.poller, self._client.fileno()
        poller.watch(fd, self._client_changed, only_the_end=True)
        try:
            async with asyncio.timeout(self._directions.wait):
                return await self._try_until_reached()
        except TimeoutError:
            raise TurnedAway(self._why_not) from None
        finally:
            self._give_up()

    async def _try_until_reached(self) -> Reached:
        pause = _FIRST_PAUSE
        while True:
            self._news.clear()
            route = self._directions.route()
            if route is None:
                self._why_not = Refusal.NO_LEADER
                await self._woken()
                continue
            if route != self._tried:
                self._tried, pause = route, _FIRST_PAUSE
            self._why_not = Refusal.UNREACHABLE
            upstream = await self._connect_along(route)
            # Asked again, by the clock: nothing new goes to a program that leads no more.
            if upstream is not None and self._directions.route() == route:
                self._attempt = None
                return Reached(upstream, route, self._ends)
            self._give_up()
            if self._directions.route() == route:
                await self._woken(at_most=pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _connect_along(self, route: Route) -> socket.socket | None:
        addresses = await self._directions.resolve(route, self.port)
        for number, (family, where) in enumerate(addresses, start=1):
            limit = None if number == len(addresses) else _SHARE
            upstream = self._begin(family, where)
            if upstream is not None and await self._is_connected(upstream, limit):
                return upstream
            self._give_up()
            if self._directions.route() != route:
                break
        return None

    def _begin(self, family: socket.AddressFamily, where: tuple[Any, ...]) -> socket.socket | None:
        """Begin to connect; None when it has failed already."""
        try:
            upstream = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:
            raise TurnedAway(Refusal.NO_RESOURCES) from None
        keep_alive(upstream)
        outcome = upstream.connect_ex(where)
        if outcome not in (0, errno.EINPROGRESS):
            upstream.close()
            return None
        self._attempt = upstream
        self._ends = name_of(upstream.getsockname()), name_of(where)
        self._directions.outgoing.add(self._ends)
        self._is_answered = outcome == 0
        if outcome:
            self._directions.poller.watch(upstream.fileno(), self._upstream_changed)
        return upstream

    async def _is_connected(self, upstream: socket.socket, limit: float | None) -> bool:
        try:
            async with asyncio.timeout(limit):
                while not self._is_answered and self._attempt is upstream:
                    await self._woken()
        except TimeoutError:
            return False
        if self._attempt is not upstream:
            return False  # `wake` has closed it
        return _has_peer(upstream)

    async def _woken(self, at_most: float | None = None) -> None:
        """Wait for news, or for some seconds."""
        try:
            async with asyncio.timeout(at_most):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        if self._is_gone:
            raise TurnedAway(Refusal.CLIENT_GONE)

    def _give_up(self) -> None:
        """Close what was not reached."""
        if self._attempt is not None:
            self._directions.poller.forget(self._attempt.fileno())
            self._attempt.close()
            self._attempt = None
            self._directions.outgoing.discard(self._ends)

    def _upstream_changed(self, _: int) -> None:
        self._is_answered = True
        self._news.set()

    def _client_changed(self, events: int) -> None:
        """Note whether it is gone; one that has sent something may only have ended its half."""
        if events & GONE or (events & ENDED and _has_nothing_to_say(self._client)):
            self._is_gone = True
            self._news.set()


def keep_alive(connection: socket.socket) -> None:
    """Have a peer that vanished found out, and small messages sent at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _SILENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_EVERY)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def name_of(address: tuple[Any, ...]) -> Name:
    """Return a socket's address in a form that can be compared: host and port."""
    return str(plain(address[0])), address[1]


def _has_peer(connection: socket.socket) -> bool:
    """Whether it is connected; that no error is known is true of one that is still connecting."""
    try:
        connection.getpeername()
    except OSError:
        return False
    return True


def _has_nothing_to_say(client: socket.socket) -> bool:
    """Whether a client that sends nothing more has sent nothing at all. Leaves its bytes there."""
    try:
        return not client.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
