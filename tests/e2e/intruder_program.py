"""Tells what its user may do in the status directory; runs in a container beside the sidecar."""

import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

DIRECTORY = Path("/run/leader-sidecar")
STATUS = DIRECTORY / "status.json"


def ask_to_retire() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(DIRECTORY / "control.sock"))


def come_of(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as refusal:
        return errno.errorcode[refusal.errno or 0]
    return "done"


def main() -> None:
    attempts: dict[str, Callable[[], object]] = {
        "write another file": (DIRECTORY / "other").touch,
        "write over it": lambda: STATUS.open("r+").close(),
        "replace it": lambda: STATUS.rename(DIRECTORY / "other"),
        "remove it": STATUS.unlink,
        "read the session": (DIRECTORY / "session.json").read_bytes,
        "have the sidecar retire": ask_to_retire,
    }
    told = {
        "user": os.getuid(),
        "owner": STATUS.stat().st_uid,
        "mode": f"{STATUS.stat().st_mode & 0o7777:o}",
        "role": json.loads(STATUS.read_text())["role"],
        "attempts": {what: come_of(attempt) for what, attempt in attempts.items()},
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
