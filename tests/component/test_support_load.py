"""What the tests on a cluster count: every request that was not answered well is a failure."""

import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from tests.e2e import load_program
from tests.support.procs import LOOPBACK, free_port


class Answer(BaseHTTPRequestHandler):
    """Answers with the status that the path says; /cut hangs up. Takes a POST at the second try."""

    sent: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        if self.path == "/cut":
            return
        self.send_response(int(self.path[1:]))
        self.send_header("crawler-served-by", "master1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(503 if len(self.sent) == 1 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Answer.sent.clear()
    with ThreadingHTTPServer((LOOPBACK, 0), Answer) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://{LOOPBACK}:{server.server_port}"
        server.shutdown()


def test_answers_and_failures_of_every_kind_are_told_apart(url: str) -> None:
    count = load_program.Count()
    nobody = f"http://{LOOPBACK}:{free_port()}"
    for asked in (f"{url}/200", f"{url}/503", f"{url}/cut", f"{nobody}/200", f"{url}/200"):
        load_program.ask(urllib.parse.urlsplit(asked), count)
    told = json.loads(count.told())
    assert (told["sent"], told["answered"], told["failures"]) == (5, 2, 3)
    assert told["served_by"] == {"master1": 2}
    assert [failed.split()[1] for failed in told["failed"]] == [
        "503",
        "RemoteDisconnected",
        "ConnectionRefusedError",
    ]


def test_what_was_not_acknowledged_is_asked_for_again_as_the_same_request(url: str) -> None:
    count = load_program.Count()
    load_program.add(urllib.parse.urlsplit(url), count, "demo-1")
    told = json.loads(count.told())
    assert (told["failures"], told["acknowledged"]) == (1, ["demo-1"])
    first, second = Answer.sent
    assert first == second
    assert first["request_id"] == "demo-1"


def test_a_gap_counts_before_it_has_ended() -> None:
    count = load_program.Count()
    count.last_answer = time.monotonic() - 7
    assert json.loads(count.told())["longest_gap"] >= 7
