"""Asks a URL again and again, each time over a connection of its own, and counts: runs in a pod.

`python load_program.py URL PER_SECOND NAME` answers on port 8000 with what it has counted so far.
It gets the URL where NAME is empty, else it adds resources there whose names begin with NAME; what
was not acknowledged is asked for again, as the same request.
"""

import http.client
import itertools
import json
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 8000
PATIENCE = 15.0  # seconds; longer than a connection may wait for a leader
_OWN = ("lock", "last_answer")  # told to nobody
PAUSE = 0.5  # seconds until a request is repeated


class Count:
    """What came of the requests; changed under its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent = self.answered = 0
        self.failed: list[str] = []
        self.acknowledged: list[str] = []
        self.longest_gap = 0.0  # seconds between two good answers
        self.slowest = 0.0  # seconds
        self.served_by: dict[str, int] = {}
        self.last_answer = time.monotonic()
        self.answered_at = 0.0  # wall clock of the last good answer

    def note(self, began: float, problem: str | None, served_by: str, added: str) -> None:
        now = time.monotonic()
        with self.lock:
            self.sent += 1
            self.slowest = max(self.slowest, now - began)
            if problem is not None:
                self.failed.append(f"{time.strftime('%H:%M:%S')} {problem}")
                return
            self.answered += 1
            if added:
                self.acknowledged.append(added)
            self.longest_gap = max(self.longest_gap, now - self.last_answer)
            self.last_answer = now
            self.answered_at = time.time()
            self.served_by[served_by] = self.served_by.get(served_by, 0) + 1

    def told(self) -> bytes:
        with self.lock:
            shown = {name: value for name, value in vars(self).items() if name not in _OWN}
            shown["failed"] = [*self.failed[:20]]
            shown["failures"] = len(self.failed)
            shown["longest_gap"] = max(self.longest_gap, time.monotonic() - self.last_answer)
            return json.dumps(shown).encode()


def ask(url: urllib.parse.SplitResult, count: Count, added: str = "") -> bool:
    """Ask once, to add a resource where one is named; return whether that went well."""
    began = time.monotonic()
    problem, served_by = None, ""
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE)
    method = "POST" if added else "GET"
    resource = {"name": added, "urls": ["http://127.0.0.1/"], "request_id": added}
    body = json.dumps(resource) if added else None
    try:
        connection.request(method, url.path or "/", body, {"Connection": "close"})
        reply = connection.getresponse()
        answer = reply.read()
        served_by = reply.headers.get("crawler-served-by", "")
        if reply.status != http.client.OK:
            problem = f"{reply.status} {answer[:200]!r}"
    except (OSError, http.client.HTTPException) as exc:
        problem = f"{type(exc).__name__} {exc} after {time.monotonic() - began:.2f} s"
    finally:
        connection.close()
    count.note(began, problem, served_by, added)
    return problem is None


def add(url: urllib.parse.SplitResult, count: Count, added: str) -> None:
    """Ask to add a resource until that is acknowledged."""
    while not ask(url, count, added):
        time.sleep(PAUSE)


def keep_asking(url: urllib.parse.SplitResult, every: float, count: Count, adds: str) -> None:
    """Send requests at a steady pace, however long those before take."""
    first = time.monotonic()
    request = add if adds else ask
    for turn in itertools.count():
        time.sleep(max(0.0, first + turn * every - time.monotonic()))
        given = (url, count, f"{adds}-{turn}" if adds else "")
        try:
            threading.Thread(target=request, args=given, daemon=True).start()
        except RuntimeError as exc:  # too many wait for an answer already
            count.note(time.monotonic(), f"not sent: {exc}", "", "")


def main() -> None:
    url, per_second, adds = urllib.parse.urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    count = Count()
    given = (url, 1 / per_second, count, adds)
    threading.Thread(target=keep_asking, args=given, daemon=True).start()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = count.told()
            self.send_response(http.client.OK)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("", PORT), Answer).serve_forever()


if __name__ == "__main__":
    main()
