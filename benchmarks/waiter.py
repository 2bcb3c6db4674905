"""A program beside a sidecar: tells when it learns that its sidecar leads. Standard library only.

`--how client` waits by `sidecar.client.Leadership.wait`; `--how file` is woken by the kernel when
the status file is replaced, and stamps that moment, before it reads what the file says.
Answers: `ready`, and `leads` (token) each time; ends with its stdin.
"""

from __future__ import annotations

import argparse
import os
import select
import threading

from benchmarks.report import Stamp, now, tell
from sidecar import boottime
from sidecar.client import Leadership

_MOVED_IN = 0x80


def _by_client(status_dir: str) -> None:
    with Leadership(status_dir) as leadership:
        tell("ready", now())
        leadership.wait("follower")
        while True:
            status = leadership.wait("leader")
            at = now()
            tell("leads", at, token=status.term.token if status.term else 0)
            leadership.wait("follower")


def _by_file(status_dir: str) -> None:
    inotify = boottime.libc_call("inotify_init1", os.O_CLOEXEC)
    boottime.libc_call("inotify_add_watch", inotify, os.fsencode(status_dir), _MOVED_IN)
    was_leader = _leads(status_dir, None, now())
    tell("ready", now())
    while True:
        select.select([inotify], [], [])
        at = now()
        os.read(inotify, 1 << 16)
        was_leader = _leads(status_dir, was_leader, at)


def _leads(status_dir: str, before: int | None, at: Stamp) -> int | None:
    """Tell when the file says leader of a term that it did not say before; return its token."""
    document, problem = boottime.read_status(f"{status_dir}/status.json")
    if problem is not None or document["role"] != "leader":
        return None
    token = document["token"]
    assert isinstance(token, int)  # noqa: S101 - read_status has checked it
    if token != before:
        tell("leads", at, token=token)
    return token


def _end_with_stdin() -> None:
    while os.read(0, 1 << 16):
        pass
    os._exit(0)


def main() -> None:
    """Run until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--status-dir", required=True)
    parser.add_argument("--how", choices=("client", "file"), required=True)
    options = parser.parse_args()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    (_by_client if options.how == "client" else _by_file)(options.status_dir)


if __name__ == "__main__":
    main()
