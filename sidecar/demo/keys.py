"""Single key presses from the terminal, without waiting for Return."""

from __future__ import annotations

import contextlib
import os
import termios
import tty
from collections.abc import Iterator

_INPUT, _SPECIAL = 0, 6  # places in what tcgetattr returns
_NO_KEY = b"\0"
_CHUNK = 64
HANGUP = ""
"""Stands for the end of the input: the terminal is gone."""


@contextlib.contextmanager
def keyboard(fd: int) -> Iterator[None]:
    """Have each key at once and unseen; the terminal is as before afterwards, whatever happens.

    Ctrl-C still is a signal. Ctrl-Z and Ctrl-S are not: the demo would stop, and its processes
    would go on unwatched.
    """
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd, termios.TCSANOW)
        mode = termios.tcgetattr(fd)
        mode[_INPUT] &= ~termios.IXON
        mode[_SPECIAL][termios.VSUSP] = _NO_KEY
        termios.tcsetattr(fd, termios.TCSANOW, mode)
        yield
    finally:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(fd, termios.TCSANOW, before)
            termios.tcflush(fd, termios.TCIFLUSH)  # keys of ours are no input for the shell


def pressed(fd: int) -> list[str]:
    """Return the keys that wait to be read, in lower case; `HANGUP` when there will be no more."""
    try:
        raw = os.read(fd, _CHUNK)
    except OSError:
        return [HANGUP]
    # An arrow or a function key is a sequence that begins with ESC: nothing to us.
    text = raw.decode(errors="replace")
    return [*text.partition("\x1b")[0].lower()] if text else [HANGUP]
