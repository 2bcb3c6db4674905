"""One GET to a server on this machine, without any proxy."""

from __future__ import annotations

import asyncio

from sidecar.demo.ports import LOOPBACK
from sidecar.errors import SidecarError

_PATIENCE = 10.0  # seconds; the server is beside us, but the machine may be slow


class NoAnswer(SidecarError):
    """The server did not answer in time, or not in HTTP."""


async def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body.

    Raises:
        NoAnswer: there was none.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                # HTTP/1.0: the body ends with the connection.
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {LOOPBACK}:{port}\r\n\r\n".encode())
                answer = await reader.read()
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body
    except (OSError, TimeoutError, ValueError, IndexError) as exc:
        raise NoAnswer(f"port {port} does not answer {path}: {str(exc) or 'in time'}") from exc
