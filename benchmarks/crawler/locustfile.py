"""Locust's part: users that add resources, each under a name and a request id of its own.

Every answer is written down with what was sent, so that acknowledgements can be held against etcd.
Locust gives a user no second task before the first has ended; many slow users therefore keep the
rate up while calls wait for a leader.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
import uuid
from typing import Any, TextIO

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment
from locust.exception import StopUser

LOG = os.environ["LOAD_LOG"]
RUN = os.environ["LOAD_RUN"]
PER_USER = float(os.environ["LOAD_PER_USER"])
"""Requests per second of each user; 0: the next one at once."""
LIMIT = int(os.environ.get("LOAD_LIMIT", "0"))
"""Requests after which there are no more; 0: no limit."""

_PATIENCE = "10s"
_numbers = itertools.count()
_log: TextIO = open(LOG, "a", buffering=1, encoding="utf-8")  # noqa: SIM115, PTH123 - to the end


class Adder(FastHttpUser):
    """Adds resources at a steady rate."""

    wait_time = constant_throughput(PER_USER) if PER_USER else lambda _user: 0.0
    # Beyond the Masters' own patience: who is silent for so long has failed without a clear error.
    network_timeout = connection_timeout = 20.0
    # One connection each, as a program has; nothing is repeated behind our back.
    max_retries = 0
    concurrency = 1

    def on_start(self) -> None:
        """Begin at a random moment: users that keep step would be a wave, not a rate."""
        if PER_USER:
            time.sleep(random.uniform(0, 1 / PER_USER))  # locust has made it one of gevent's

    @task
    def add(self) -> None:
        """Add one resource, and write down what came of it."""
        number = next(_numbers)
        if LIMIT and number >= LIMIT:
            raise StopUser
        name, request_id = f"{RUN}-{number}", uuid.uuid4().hex
        spec = {"name": name, "urls": [f"http://{name}.invalid/"], "request_id": request_id}
        headers = {"request-timeout": _PATIENCE}
        sent = time.monotonic()
        with self.client.post(
            "/resources", name="AddResource", json=spec, headers=headers, catch_response=True
        ) as answer:
            told = _told(answer)
            if told["status"] != 200:
                answer.failure(f"{told['status']} {told['error']}")
        line = {"name": name, "request_id": request_id, "sent": sent, "at": time.monotonic()}
        _log.write(json.dumps({**line, **told}) + "\n")


def _told(answer: Any) -> dict[str, object]:
    """Return status and error; status 0: the connection broke, and the error says how."""
    if not answer.status_code:
        return {"status": 0, "error": f"{type(answer.error).__name__}: {answer.error}"}
    try:
        document = answer.json()
    except ValueError:
        document = {"message": "no JSON"}
    if answer.status_code == 200:
        return {"status": 200, "error": ""}
    return {"status": answer.status_code, "error": document.get("message", "no message")}


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # locust has no types
def _judged_elsewhere(environment: Environment, **_: object) -> None:
    environment.process_exit_code = 0  # what failed is in the log
