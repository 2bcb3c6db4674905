"""Where etcd listens: parsing ``http://a:2379,b:2379``, and names with several addresses."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One client address of etcd as the user gave it."""

    host: str
    port: int
    is_secure: bool = False

    def __str__(self) -> str:
        scheme = "https" if self.is_secure else "http"
        return f"{scheme}://{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to; `authority` is the name it was given by."""

    endpoint: Endpoint
    ip: str

    @property
    def target(self) -> str:
        """The address in gRPC's notation."""
        family = "ipv6" if ":" in self.ip else "ipv4"
        return f"{family}:{_bracketed(self.ip)}:{self.endpoint.port}"

    @property
    def authority(self) -> str:
        """What the server is called in HTTP and in its certificate."""
        return f"{_bracketed(self.endpoint.host)}:{self.endpoint.port}"

    def __str__(self) -> str:
        shown = str(self.endpoint)
        return shown if self.ip == self.endpoint.host else f"{shown} ({self.ip})"


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Parse a comma-separated list; a part without a scheme takes that of the part before.

    Raises:
        ValueError: a sentence that says which part is wrong and what would be right.
    """
    endpoints: list[Endpoint] = []
    is_secure = False
    for part in (part.strip() for part in text.split(",")):
        if not part:
            continue
        scheme, separator, rest = part.partition("://")
        if separator:
            if scheme not in {"http", "https"}:
                raise ValueError(f"{part!r} has the scheme {scheme!r}; use http:// or https://")
            is_secure = scheme == "https"
        else:
            rest = part
        host, port = _host_and_port(part, rest.rstrip("/"))
        endpoints.append(Endpoint(host, port, is_secure))
    if not endpoints:
        raise ValueError("no endpoint is given; use for example http://127.0.0.1:2379")
    if len({endpoint.is_secure for endpoint in endpoints}) > 1:
        raise ValueError("http:// and https:// endpoints are mixed; use one of them for all")
    return tuple(dict.fromkeys(endpoints))


def _host_and_port(part: str, rest: str) -> tuple[str, int]:
    host, separator, port = rest.rpartition(":")
    if not separator or host.endswith(":") or (":" in host and not host.startswith("[")):
        raise ValueError(f"{part!r} has no port; write it as {part.rstrip('/')}:2379")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) <= _HIGHEST_PORT:
        raise ValueError(f"{part!r} has the port {port!r}; it must be a number from 1 to 65535")
    host = host.removeprefix("[").removesuffix("]")
    if not host or any(c.isspace() or c in "/@?#" for c in host):
        raise ValueError(f"{part!r} names no host; use for example http://127.0.0.1:2379")
    return host, int(port)


async def resolve(endpoints: Sequence[Endpoint]) -> tuple[Address, ...]:
    """Return every address of every endpoint; a name that does not resolve contributes none."""
    loop = asyncio.get_running_loop()
    addresses: list[Address] = []
    for endpoint in endpoints:
        if _is_ip(endpoint.host):
            addresses.append(Address(endpoint, endpoint.host))
            continue
        try:
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            continue  # the caller asks again after each failed round
        addresses += [Address(endpoint, str(info[4][0])) for info in found]
    return tuple(dict.fromkeys(addresses))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
