"""As much of Kubernetes' API as the programs in `sidecar.cluster` use: objects by their paths.

A fake, since no API server can be had without a cluster; what a real one does differently, the
end-to-end tests show.
"""

import json
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl

from sidecar.cluster.api import Api

Thing = dict[str, Any]


class KubernetesApi:
    """A context manager that serves `things`, which a test fills, and notes what was created."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self.created: list[tuple[str, Thing]] = []
        self.patched: list[tuple[str, Thing]] = []
        self.lists: dict[str, Callable[[], list[Thing]]] = {}
        self.on_delete: Callable[[str], None] = lambda path: None
        self.refuses = ""  # a method that is answered by 403
        self.is_away = 0  # so many requests are answered by 503
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def api(self) -> Api:
        """The way to it."""
        return Api(f"http://127.0.0.1:{self._server.server_address[1]}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, method: str, path: str, body: Thing) -> tuple[HTTPStatus, Thing]:
        """Do what a request asks."""
        with self._lock:
            refusal = self._refusal(method)
            if refusal is not None:
                return refusal
            if method == "POST":
                self.created.append((path, body))
                return HTTPStatus.CREATED, body
            if method == "GET" and (listing := self.lists.get(path.partition("?")[0])):
                return HTTPStatus.OK, {"items": listing()}
            path, _, query = path.partition("?")
            if path not in self.things:
                return HTTPStatus.NOT_FOUND, {"message": f"{path} is not there"}
            return self._known(method, path, body, dict(parse_qsl(query)))

    def _refusal(self, method: str) -> tuple[HTTPStatus, Thing] | None:
        if method == self.refuses:
            return HTTPStatus.FORBIDDEN, {"message": f"cannot {method.lower()} this"}
        if self.is_away:
            self.is_away -= 1
            return HTTPStatus.SERVICE_UNAVAILABLE, {"message": "not now"}
        return None

    def _known(
        self, method: str, path: str, body: Thing, asked: dict[str, str]
    ) -> tuple[HTTPStatus, Thing]:
        thing = self.things[path]
        if "dryRun" in asked:
            return HTTPStatus.OK, thing
        if "fieldManager" in asked:  # who writes under a name owns what it changed
            owner = {"manager": asked["fieldManager"]}
            thing["metadata"].setdefault("managedFields", []).append(owner)
        if method == "PATCH":
            _merge(thing, body)
            self.patched.append((path, body))
        if method == "DELETE":
            if body["preconditions"]["uid"] != thing["metadata"]["uid"]:
                return HTTPStatus.CONFLICT, {"message": "another one by now"}
            del self.things[path]
            self.on_delete(path)
        return HTTPStatus.OK, thing

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            def _do(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or b"{}")
                status, answer = world.answer(self.command, self.path, body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _do  # noqa: N815 - as the base wants

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        return Handler


def _merge(thing: Thing, patch: Thing) -> None:
    for name, value in patch.items():
        if isinstance(value, dict):
            _merge(thing.setdefault(name, {}), value)
        else:
            thing[name] = value
