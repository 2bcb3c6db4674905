"""Asks a URL again and again, each time over a connection of its own, and counts: runs in a pod.

`python load_program.py URL PER_SECOND` answers on port 8000 with what it has counted so far.
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


class Count:
    """What came of the requests; changed under its lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent = self.answered = 0
        self.failed: list[str] = []
        self.longest_gap = 0.0  # seconds between two good answers
        self.slowest = 0.0  # seconds
        self.served_by: dict[str, int] = {}
        self.last_answer = time.monotonic()
        self.answered_at = 0.0  # wall clock of the last good answer

    def note(self, began: float, problem: str | None, served_by: str) -> None:
        now = time.monotonic()
        with self.lock:
            self.sent += 1
            self.slowest = max(self.slowest, now - began)
            if problem is not None:
                self.failed.append(f"{time.strftime('%H:%M:%S')} {problem}")
                return
            self.answered += 1
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


def ask(url: urllib.parse.SplitResult, count: Count) -> None:
    began = time.monotonic()
    problem, served_by = None, ""
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=PATIENCE)
    try:
        connection.request("GET", url.path or "/", headers={"Connection": "close"})
        reply = connection.getresponse()
        body = reply.read()
        served_by = reply.headers.get("crawler-served-by", "")
        if reply.status != http.client.OK:
            problem = f"{reply.status} {body[:200]!r}"
    except (OSError, http.client.HTTPException) as exc:
        problem = f"{type(exc).__name__} {exc} after {time.monotonic() - began:.2f} s"
    finally:
        connection.close()
    count.note(began, problem, served_by)


def keep_asking(url: urllib.parse.SplitResult, every: float, count: Count) -> None:
    """Send requests at a steady pace, however long those before take."""
    first = time.monotonic()
    for turn in itertools.count():
        time.sleep(max(0.0, first + turn * every - time.monotonic()))
        threading.Thread(target=ask, args=(url, count), daemon=True).start()


def main() -> None:
    url, per_second = urllib.parse.urlsplit(sys.argv[1]), float(sys.argv[2])
    count = Count()
    asking = threading.Thread(target=keep_asking, args=(url, 1 / per_second, count), daemon=True)
    asking.start()

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
