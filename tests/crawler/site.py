"""A web site on loopback whose pages are as bad as a test wants them."""

import http.server
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from tests.support.procs import LOOPBACK, wait_until

Handler = http.server.BaseHTTPRequestHandler
Answer = Callable[["Visit"], None]


class Visit:
    """One request, and the ways to answer it."""

    def __init__(self, handler: Handler, closing: threading.Event) -> None:
        self.headers: Mapping[str, str] = dict(handler.headers.items())
        self.closing = closing
        self._handler = handler

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Send status and headers; the end of the connection ends the body."""
        self._handler.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def send(self, data: bytes) -> bool:
        """Send bytes of the body; whether the other side still listens."""
        try:
            self._handler.wfile.write(data)
            self._handler.wfile.flush()
        except OSError:
            return False
        return True


def html(
    links: Sequence[str] = (), title: str = "", extra: Mapping[str, str] | None = None
) -> Answer:
    """Return an ordinary page."""
    anchors = "".join(f'<a href="{link}">x</a>' for link in links)
    body = f"<html><head><title>{title}</title></head><body>{anchors}</body></html>".encode()

    def answer(visit: Visit) -> None:
        visit.head(200, {"Content-Type": "text/html; charset=utf-8", **(extra or {})})
        visit.send(body)

    return answer


def redirect(to: str) -> Answer:
    """Return a redirect."""
    return lambda visit: visit.head(302, {"Location": to})


class Site:
    """A server with pages by their paths; a context manager."""

    def __init__(self, pages: Mapping[str, Answer] | None = None) -> None:
        self.pages: dict[str, Answer] = dict(pages or {})
        self.visits: list[str] = []
        self.closing = threading.Event()
        site = self

        class Handling(Handler):
            def do_GET(self) -> None:  # noqa: N802 - the library's name
                site.visits.append(self.path)
                page = site.pages.get(self.path)
                visit = Visit(self, site.closing)
                if page is None:
                    visit.head(404, {"Content-Type": "text/plain"})
                else:
                    page(visit)
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = False  # so that closing waits for what is being answered

            def handle_error(self, request: object, client_address: object) -> None:
                """A crawler that goes away in the middle is no error of ours."""

        self._server = Server((LOOPBACK, 0), Handling)
        self.url = f"http://{LOOPBACK}:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, path: str) -> int:
        """Return how often a page was asked for."""
        return self.visits.count(path)

    def wait_for(self, path: str, more_than: int = 0) -> None:
        """Wait until a page was asked for more often than this."""
        wait_until(lambda: self.count(path) > more_than, f"{path} is asked for", 60.0)
