"""The header of the PROXY protocol, version 2: it tells a server who its client's client is.

https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, section 2.2.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_TCP4, _TCP6 = 0x11, 0x21
_IPV4 = 4


def header(client: tuple[Any, ...], server: tuple[Any, ...]) -> bytes:
    """Return the header for a connection of `client` to `server`, as sockets name them."""
    source, destination = plain(client[0]), plain(server[0])
    is_v4 = source.version == destination.version == _IPV4
    if not is_v4:  # both must be of one family; a v4 address has a place in v6
        source, destination = _as_v6(source), _as_v6(destination)
    ports = struct.pack("!HH", client[1], server[1])
    body = source.packed + destination.packed + ports
    family = _TCP4 if is_v4 else _TCP6
    return _SIGNATURE + struct.pack("!BBH", _VERSION_2_PROXY, family, len(body)) + body


def plain(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address as it is; a socket of both families writes those of v4 in v6's way."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _as_v6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
