"""Finds the addresses of the leader, and leaves out those where only the forwarder listens."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence

from sidecar.forward.caller import Address, Name, TurnedAway
from sidecar.forward.meter import Refusal
from sidecar.forward.proxy_protocol import plain
from sidecar.forward.routes import Route

_KEPT = 1.0  # seconds that the addresses of a name are taken to be the same


class Resolver:
    """Turns the hosts of a route into addresses.

    Args:
        listening: where the forwarder itself listens.
        own_host: as which others know this machine.
    """

    def __init__(self, listening: Sequence[Name], own_host: str) -> None:
        self._listening = frozenset((str(plain(host)), port) for host, port in listening)
        self._own_host = own_host
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def resolve(self, route: Route, port: int) -> list[Address]:
        """Return where to try, in this order; nothing when a name is not known now.

        Raises:
            TurnedAway: there is nobody else than the forwarder.
        """
        hosts = [address for host in route.hosts for address in await self._addresses(host)]
        others = [host for host in dict.fromkeys(hosts) if not self._is_own(host, port)]
        if hosts and not others:
            raise TurnedAway(Refusal.LOOP)
        return [_address(host, port) for host in others]

    def _is_own(self, host: str, port: int) -> bool:
        address = ipaddress.ip_address(host)
        anywhere = {("0.0.0.0", port), ("::", port)}  # noqa: S104 - a comparison
        is_here = address.is_loopback or host == self._own_host
        return (host, port) in self._listening or (
            is_here and not anywhere.isdisjoint(self._listening)
        )

    async def _addresses(self, host: str) -> list[str]:
        if _is_literal(host):
            return [host]
        # One question at a time for each name: the answers come from a few threads.
        async with self._asking.setdefault(host, asyncio.Lock()):
            asked_at, known = self._known.get(host, (float("-inf"), []))
            if self._loop.time() < asked_at + _KEPT:
                return known
            try:
                found = await self._loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError):  # not known, or nothing that could be asked for
                return []
            addresses = [str(info[4][0]) for info in found]
            self._known = {host: (self._loop.time(), addresses)}
            return addresses


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(host: str, port: int) -> Address:
    is_v6 = ":" in host
    return (socket.AF_INET6 if is_v6 else socket.AF_INET), (host, port)
