"""The sidecar's end of `leader-sidecar retire`: a socket in the status directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from sidecar.election.backoff import Backoff
from sidecar.outputs.health import LONGEST_PAUSE, OutputErrors
from sidecar.retire import DONE, LEFT, RETIRE, SOCKET, STEPPED_DOWN

OUTPUT = "retire_socket"
_MODE = 0o600
_PATIENCE = 5.0  # seconds for a client to say what it wants


class RetireSocket:
    """Listens for `retire`.

    Args:
        directory: the status directory.
        retire: called for each request; must return at once.
        stepped_down: waits until the outputs say follower.
        given_up: waits until the candidacy is over; returns whether the key was given up.
        errors: told when the socket cannot be made; that stops nothing else.
    """

    def __init__(
        self,
        directory: Path,
        *,
        retire: Callable[[], None],
        stepped_down: Callable[[], Awaitable[None]],
        given_up: Callable[[], Awaitable[bool]],
        errors: OutputErrors,
    ) -> None:
        self._directory = directory
        self._retire = retire
        self._stepped_down = stepped_down
        self._given_up = given_up
        self._errors = errors

    async def run(self) -> None:
        """Serve until cancelled; the socket's file goes with it."""
        backoff = Backoff(random.SystemRandom(), LONGEST_PAUSE)
        while True:
            try:
                await self._listen_and_serve()
            except OSError as exc:
                self._errors.failed(OUTPUT, exc)
                await asyncio.sleep(backoff.next())

    async def _listen_and_serve(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        path = f"/proc/self/fd/{fd}/{SOCKET}"
        try:
            server = await asyncio.start_unix_server(self._serve, sock=_listen(path))
            self._errors.worked(OUTPUT)
            async with server:
                await server.serve_forever()
        finally:
            _remove(path)
            os.close(fd)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # ValueError: a line that never ends.
        silenced = contextlib.suppress(OSError, ValueError, TimeoutError)
        with silenced, contextlib.closing(writer):
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
            if line != RETIRE:
                return
            self._retire()
            await self._stepped_down()
            writer.write(STEPPED_DOWN)
            await writer.drain()
            writer.write(DONE if await self._given_up() else LEFT)
            await writer.drain()


def _listen(path: str) -> socket.socket:
    _remove(path)  # of a predecessor; the lock on the directory says that it is gone
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        Path(path).chmod(_MODE)
    except OSError:
        listener.close()
        raise
    return listener


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).unlink()
