"""Sockets to listen on."""

from __future__ import annotations

import socket


def listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """Return a socket that listens; without a host, on all addresses of both families.

    Raises:
        OSError: the port is taken, or the address is not ours.
    """
    both = not host and socket.has_dualstack_ipv6()
    flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
    family = socket.AF_INET6 if both else socket.AF_UNSPEC
    found = socket.getaddrinfo(host or None, port, family, socket.SOCK_STREAM, flags=flags)
    # An address to listen on is numeric or a name with one address; with several, the first.
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if both:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by what is accepted: clients that vanished are found.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.bind(address)
        listener.listen(backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def where(host: str, port: int) -> str:
    """Return an address as people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
