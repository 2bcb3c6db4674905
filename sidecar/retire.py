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

HELP = f"""\
Usage: leader-sidecar retire [--wait] [--status-dir DIR]

  Step down in order and never stand again, as in a pod's preStop. The sidecar itself ends on
  SIGTERM; until then it goes on answering, as a follower.

  Example: leader-sidecar retire --wait

Options:
  --wait            return when the key has been given up, not when the outputs say follower
  --status-dir DIR  where the sidecar keeps status.json
                    [env: {ENVIRONMENT}; default: {boottime.DEFAULT_STATUS_DIR}]
  --help            show this and exit

Exit codes: 0 done, 1 no sidecar runs there or the key is left to end with its lease, 2 usage.
"""


def retire(arguments: Sequence[str]) -> int:
    """Run the command; return its exit code."""
    directory = os.environ.get(ENVIRONMENT) or boottime.DEFAULT_STATUS_DIR
    wait = False
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--help":
            sys.stdout.write(HELP)
            return 0
        if argument == "--wait":
            wait = True
        elif name == "--status-dir" and (equals or left):
            directory = value if equals else left.pop(0)
        else:
            sys.stderr.write(f"retire: unknown or incomplete option {argument!r}; see --help\n")
            return 2
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
