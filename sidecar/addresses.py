"""Network addresses: how users write them, and the one that this machine has itself."""

from __future__ import annotations

import array
import fcntl
import ipaddress
import re
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.values import quoted

_NAME = re.compile(  # no longer as a whole, and in each part, than DNS can ask for
    r"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    r"(?:\.[A-Za-z0-9_-]{1,63})*\.?"
)
_HIGHEST_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}

# ioctl requests and flags of linux/sockios.h and linux/if.h.
_SIOCGIFCONF, _SIOCGIFFLAGS = 0x8912, 0x8913
_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
# struct ifreq: a name of 16 bytes, then a union as large as struct ifmap.
_NAME_SIZE, _ADDRESS_AT = 16, 20
_IFREQ_SIZE = _NAME_SIZE + 2 * struct.calcsize("L") + 8
_INTERFACES = 1024


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host, "" for every address of this machine, and a TCP port, 0 for any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class HttpTarget:
    """What an HTTP request is sent to.

    Attributes:
        authority: host and port as the user wrote them, for the Host header.
        path: path and query, beginning with a slash.
    """

    is_secure: bool
    where: HostPort
    authority: str
    path: str

    def __str__(self) -> str:
        return f"{'https' if self.is_secure else 'http'}://{self.authority}{self.path}"


def parse_listen(text: str) -> HostPort:
    """Parse ``[HOST]:PORT``.

    Raises:
        ValueError: a sentence that says what is wrong and what would be right.
    """
    host, port = _split(text)
    if port is None or (host and not _is_host(host)) or not _is_port(port, least=0):
        raise ValueError(
            f"{quoted(text)} is no address to listen on; write HOST:PORT, or :PORT for every "
            "address of this machine, such as :4040"
        )
    return HostPort(host, int(port))


def parse_target(text: str) -> HostPort:
    """Parse ``HOST:PORT``, something to connect to; raises `ValueError` as `parse_listen`."""
    host, port = _split(text)
    if port is None or not _is_host(host) or not _is_port(port):
        raise ValueError(
            f"{quoted(text)} is no address to connect to; write HOST:PORT, such as localhost:8080"
        )
    return HostPort(host, int(port))


def parse_advertised(text: str) -> str:
    """Return ``HOST`` or ``HOST:PORT`` as it was given; raises `ValueError` as `parse_listen`."""
    host, port = _split(text)
    if not _is_host(host) or not (port is None or _is_port(port)):
        raise ValueError(
            f"{quoted(text)} is no address that others could reach; write HOST or HOST:PORT, such "
            "as 10.0.0.7:9090"
        )
    return text


def host_of(advertised: str) -> str:
    """Return the host of ``HOST`` or ``HOST:PORT``; "" where there is none to connect to."""
    host, port = _split(advertised)
    return host if _is_host(host) and (port is None or _is_port(port)) else ""


def parse_url(text: str) -> HttpTarget:
    """Parse ``http://HOST[:PORT][/PATH]`` or https; raises `ValueError` as `parse_listen`."""
    wrong = ValueError(
        f"{quoted(text)} is no URL to probe; write http://HOST:PORT/PATH or https://..., such as "
        "http://localhost:8080/healthz, without a user name, and with spaces and letters outside "
        "of ASCII percent-encoded"
    )
    # urlsplit drops newlines silently, and what it passes on ends up in a request.
    if not text.isascii() or not text.isprintable() or " " in text:
        raise wrong
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    host = parts.hostname or ""
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None or not _is_host(host) or "@" in parts.netloc or port == 0:
        raise wrong
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_secure = parts.scheme == "https"
    return HttpTarget(is_secure, HostPort(host, port or default), parts.netloc, path)


class Interface(NamedTuple):
    """An address of a network interface, with the interface's flags."""

    name: str
    flags: int
    address: str


def own_address(found: Iterable[Interface] | None = None) -> str | None:
    """Return the first IPv4 address that other machines may know, or None.

    Not one of a loopback, of an interface that is down, or a link-local one. Looks at this
    machine's interfaces unless it is given others.
    """
    for _, flags, address in interfaces() if found is None else found:
        is_usable = flags & _IFF_UP and not flags & _IFF_LOOPBACK
        if is_usable and not _is_local(ipaddress.IPv4Address(address)):
            return address
    return None


def interfaces() -> Sequence[Interface]:
    """Return this machine's IPv4 addresses in the kernel's order; sends no packet."""
    buffer = array.array("B", bytes(_IFREQ_SIZE * _INTERFACES))
    start, size = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("iP", size, start)
        used, _ = struct.unpack("iP", fcntl.ioctl(handle, _SIOCGIFCONF, request))
        table = buffer.tobytes()[:used]
        records = (table[at : at + _IFREQ_SIZE] for at in range(0, used, _IFREQ_SIZE))
        return [_interface(handle, record) for record in records]


def _interface(handle: socket.socket, record: bytes) -> Interface:
    name = record[:_NAME_SIZE]
    asked = fcntl.ioctl(handle, _SIOCGIFFLAGS, name.ljust(_IFREQ_SIZE, b"\0"))
    (flags,) = struct.unpack_from("H", asked, _NAME_SIZE)
    address = socket.inet_ntoa(record[_ADDRESS_AT : _ADDRESS_AT + 4])
    return Interface(name.rstrip(b"\0").decode(errors="replace"), flags, address)


def _is_local(address: ipaddress.IPv4Address) -> bool:
    return address.is_loopback or address.is_link_local or address.is_unspecified


def _split(text: str) -> tuple[str, str | None]:
    """Return host (without brackets) and port; an IPv6 address with a port needs brackets."""
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if ":" not in host or not closing or rest[:1] not in ("", ":"):
            return text, None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, separator, port = text.partition(":")
    return host, port if separator else None


def _is_port(text: str, least: int = 1) -> bool:
    return (
        text.isascii()
        and text.isdigit()
        and len(text) <= len(str(_HIGHEST_PORT))
        and least <= int(text) <= _HIGHEST_PORT
    )


def _is_host(text: str) -> bool:
    if ":" in text:
        try:
            ipaddress.IPv6Address(text)
        except ValueError:
            return False
        return True
    if not text or text.replace(".", "").isdigit():  # digits and dots only: an address, or a typo
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return False
        return True
    return _NAME.fullmatch(text) is not None
