"""`leader-sidecar retire`: tell the sidecar of this pod to step down for good.

Runs in a pod's `preStop`, at the moment when the program gets its SIGTERM, so it uses the
standard library only. It speaks to `run` over a socket in the status directory: one line
"retire" there; back come "stepped-down" when the outputs say follower, and "done" when the key is
given up (or "left": it is left to end with its lease).
"""

import os
import socket
import sys
from collections.abc import Sequence

from sidecar import boottime

SOCKET = "control.sock"
ENVIRONMENT = "LEADER_SIDECAR_STATUS_DIR"
RETIRE, STEPPED_DOWN, DONE, LEFT = b"retire\n", b"stepped-down\n", b"done\n", b"left\n"
_PATIENCE = 600.0


def quick_retire(arguments: Sequence[str]) -> int | None:
    """Run the command without click; None where its options need it (an error, or --help)."""
    directory = os.environ.get(ENVIRONMENT) or boottime.DEFAULT_STATUS_DIR
    wait = False
    left = list(arguments)
    while left:
        name, equals, value = left.pop(0).partition("=")
        if name == "--wait" and not equals:
            wait = True
        elif name == "--status-dir" and (equals or left):
            directory = value if equals else left.pop(0)
        else:
            return None
    return retire(directory, wait=wait)


def retire(directory: str, *, wait: bool) -> int:
    """Have the sidecar of this status directory retire; return the exit code."""
    try:
        return _ask(directory, last=DONE if wait else STEPPED_DOWN)
    except OSError as exc:
        sys.stderr.write(
            f"retire: no sidecar answers in {directory}: {exc.strerror or exc}; "
            "is it running, and is this its --status-dir?\n"
        )
        return 1


def _ask(directory: str, *, last: bytes) -> int:
    # Over the descriptor, because a socket's path may have 107 characters only.
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_PATIENCE)
            connection.connect(f"/proc/self/fd/{fd}/{SOCKET}")
            connection.sendall(RETIRE)
            for line in connection.makefile("rb"):
                if line in (last, DONE):
                    return 0
                if line == LEFT:
                    sys.stderr.write("retire: the key is left to end with its lease\n")
                    return 1
    finally:
        os.close(fd)
    sys.stderr.write("retire: the sidecar ended before it was done\n")
    return 1
