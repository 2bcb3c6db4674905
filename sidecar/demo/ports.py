"""Ports on the loopback interface that stay ours while servers on them come and go."""

from __future__ import annotations

import socket

from sidecar.errors import ConfigError

LOOPBACK = "127.0.0.1"


class ReservedPort:
    """A port that the kernel gives to nobody else, while one of our servers may listen on it.

    Two sockets with SO_REUSEADDR share a port in Linux as long as at most one of them listens; Go
    and uvicorn set it. So nobody can take the port between a server's death and its restart, and
    no outgoing connection gets it by chance.
    """

    def __init__(self, number: int = 0) -> None:
        """Take this port; 0: any free one.

        Raises:
            ConfigError: somebody listens there, or it is not for us.
        """
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((LOOPBACK, number))
        except OSError as exc:
            self._socket.close()
            why = (exc.strerror or str(exc)).lower()
            raise ConfigError(
                [f"--port: cannot use {LOOPBACK}:{number}: {why}; give another, or none"]
            ) from exc
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()
