"""Commands on stdin, one a line, for the child programs that run an event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

_CHUNK = 1 << 16


async def commands() -> AsyncIterator[tuple[str, str]]:
    """Yield each line as command and argument; end with "quit" or with stdin."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    os.set_blocking(0, False)
    loop.add_reader(0, readable.set)
    try:
        left = b""
        while True:
            await readable.wait()
            readable.clear()
            chunk = _read()
            if chunk == b"":
                return
            *lines, left = (left + (chunk or b"")).split(b"\n")
            for line in lines:
                command, _, argument = line.decode().partition(" ")
                if command == "quit":
                    return
                yield command, argument
    finally:
        loop.remove_reader(0)


def _read() -> bytes | None:
    try:
        return os.read(0, _CHUNK)
    except BlockingIOError:
        return None
