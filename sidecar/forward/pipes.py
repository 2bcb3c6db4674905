"""Pipes for `splice`: borrowed while bytes flow, given back when they are empty."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from typing import NamedTuple

SIZE = 1 << 20
"""Bytes that a pipe holds at most, and so what one call moves."""

FLAGS = getattr(os, "SPLICE_F_MOVE", 0) | getattr(os, "SPLICE_F_NONBLOCK", 0)

_SPARE = 16
_NONBLOCKING_AND_NOT_INHERITED = os.O_NONBLOCK | os.O_CLOEXEC


class Pipe(NamedTuple):
    """Its two ends."""

    read: int
    write: int


class Pipes:
    """A few spare pipes.

    Args:
        most: so many may exist at once.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._spare: list[Pipe] = []
        self.count = 0

    def borrow(self) -> Pipe | None:
        """Return an empty pipe, or None when there are too many already."""
        if self._spare:
            return self._spare.pop()
        if self.count >= self.most:
            return None
        try:
            pipe = Pipe(*os.pipe2(_NONBLOCKING_AND_NOT_INHERITED))
        except OSError:  # no descriptors left: bytes can be moved without
            return None
        self.count += 1
        # A larger one moves more per call; where a user's share is used up it stays small.
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe.write, fcntl.F_SETPIPE_SZ, SIZE)
        return pipe

    def give_back(self, pipe: Pipe, *, is_empty: bool) -> None:
        """Take a pipe back. One that holds bytes is closed: they belong to nobody else."""
        if is_empty and len(self._spare) < _SPARE:
            self._spare.append(pipe)
        else:
            self._close(pipe)

    def close(self) -> None:
        """Close the spare ones."""
        while self._spare:
            self._close(self._spare.pop())

    def _close(self, pipe: Pipe) -> None:
        self.count -= 1
        os.close(pipe.read)
        os.close(pipe.write)


def can_splice() -> bool:
    """Whether this Python and this kernel move bytes from a socket into a pipe."""
    if not hasattr(os, "splice"):
        return False
    pipe = Pipe(*os.pipe2(_NONBLOCKING_AND_NOT_INHERITED))
    one, other = socket.socketpair()
    try:
        other.sendall(b"x")
        return os.splice(one.fileno(), pipe.write, 1, flags=FLAGS) == 1
    except OSError:
        return False
    finally:
        one.close()
        other.close()
        os.close(pipe.read)
        os.close(pipe.write)
