"""Tells every change of the status file, and when it was seen; runs in a container of a Master.

Told to stop, it goes on until the sidecar has stepped down: that is what it is there to see.
"""

import contextlib
import json
import signal
import threading
import time

from sidecar.client import Leadership, Status

LOOK_EVERY = 0.5  # seconds between two looks whether it was told to stop
ENDS = ("retired", "shutdown")


def tell(status: Status) -> None:
    said = {"at": time.time(), "role": status.role, "reason": status.reason}
    print(json.dumps({**said, "token": status.term.token if status.term else 0}), flush=True)


def main() -> None:
    told_to_stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_stop.set())
    leadership = Leadership()
    status = leadership.status()
    tell(status)
    while not (told_to_stop.is_set() and status.reason in ENDS):
        with contextlib.suppress(TimeoutError):
            status = leadership.wait(timeout=LOOK_EVERY, since=status)
            tell(status)


if __name__ == "__main__":
    main()
