"""The HTTP side: the same operations with JSON, an OpenAPI page, probes and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Iterator
from typing import Any

import grpc
import uvicorn
from google.protobuf import json_format
from google.protobuf.message import Message
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from crawler import openapi
from crawler.calls import PATIENCE, SERVED_BY, Call, Metadata, to_pass_on
from crawler.master_metrics import Metrics
from crawler.problems import Problem, invalid
from crawler.routing import Router
from crawler.rpc import family
from sidecar.addresses import HostPort
from sidecar.client import Leadership
from sidecar.errors import ConfigError
from sidecar.values import parse_duration

TIMEOUT = "request-timeout"
"""The header that says how long a call may take; gRPC's deadline."""
_LARGEST_BODY = 64 * 1024
_RETRY_AFTER = "1"
_LONGEST_WAIT = 60.0
_IDLE = 75
"""Seconds until a connection that is not used is closed: more than clients and proxies keep one, so
that none of them sends a request into a connection that we are closing."""
_HEARD_OF_WITHIN = 1.0
"""Seconds after a change of the leader in which others may not know of it yet."""
_OF_THE_CALLER = ("x-", "authorization", "traceparent", "tracestate", "baggage")


class Web:
    """The application."""

    def __init__(self, router: Router, leadership: Leadership, metrics: Metrics) -> None:
        self.is_ready = False
        self._router = router
        self._leadership = leadership
        self.terms = Terms(leadership)
        self._metrics = metrics
        routes = [
            Route(path.path, self._endpoint(path), methods=[path.method]) for path in openapi.PATHS
        ]
        self.app = Starlette(
            routes=[
                *routes,
                Route("/", _page),
                Route("/openapi.json", _openapi),
                Route("/healthz", _alive),
                Route("/readyz", self._readyz),
                Route("/metrics", self._exposition),
            ]
        )

    def _endpoint(self, path: openapi.Path) -> Any:
        async def endpoint(request: Request) -> Response:
            try:
                message = await _message(request, path)
                reply = await self._router.route(_call(request, path, message))
            except Problem as problem:
                answer: Response = _problem(problem)
            else:
                document = json_format.MessageToDict(
                    reply.message,
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
                answer = JSONResponse(document, headers={SERVED_BY: reply.served_by})
            return self._sending_away(request, answer)

        return endpoint

    def _sending_away(self, request: Request, answer: Response) -> Response:
        """Close a connection that is older than the term: a new one may reach the new leader.

        Also on a Master that did not lead when it was opened: a forwarder may have led here while
        the leader before was still stepping down.
        """
        if request.state.token != self.terms.now():
            answer.headers["connection"] = "close"
        return answer

    async def _readyz(self, _: Request) -> Response:
        if self.is_ready:
            return PlainTextResponse("ready\n")
        return PlainTextResponse("waits for a first leader, or is about to end\n", 503)

    async def _exposition(self, _: Request) -> Response:
        self._metrics.leads.set(self._leadership.is_leader())
        return Response(generate_latest(self._metrics.registry), media_type=CONTENT_TYPE_LATEST)


class WebServer:
    """Serves the application on a port, until told to stop."""

    def __init__(self, where: HostPort, web: Web) -> None:
        """Listen at once.

        Raises:
            ConfigError: the port is taken, or the address is not ours.
        """
        self._listener = _listen(where)
        self.port: int = self._listener.getsockname()[1]

        class Protocol(H11Protocol):
            """Knows in whose term a connection was opened."""

            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                self.app_state = {**self.app_state, "token": web.terms.of_new_connection()}

        self._server = _Server(
            uvicorn.Config(
                web.app,
                http=Protocol,
                ws="none",
                lifespan="off",
                loop="none",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=5,
                timeout_keep_alive=_IDLE,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Stop listening, let what is under way finish, then return from `run`."""
        self._server.should_exit = True


class Terms:
    """In whose term a connection was opened."""

    def __init__(self, leadership: Leadership) -> None:
        self._leadership = leadership
        self._token = 0
        self._changed_at = -math.inf

    def now(self) -> int:
        """Return the fencing token of whoever leads, 0 while nobody does."""
        leader = self._leadership.leader
        token = leader.token if leader is not None else 0
        if token != self._token:
            self._token, self._changed_at = token, asyncio.get_running_loop().time()
        return token

    def of_new_connection(self) -> int:
        """Return the same, but 0 when that is new and somebody else's.

        A forwarder that has not heard of the change yet has led here, and will close this
        connection with those of the term before. One that leads to the new leader has heard of it.
        """
        token = self.now()
        age = asyncio.get_running_loop().time() - self._changed_at
        return 0 if age <= _HEARD_OF_WITHIN and not self._leadership.is_leader() else token


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the program."""
        yield


async def _message(request: Request, path: openapi.Path) -> Message:
    document: Any = {**request.query_params, **request.path_params}
    if path.has_body:
        document = await _body(request)
    try:
        return json_format.ParseDict(document, path.operation.request())
    except json_format.ParseError as exc:
        raise Problem(grpc.StatusCode.INVALID_ARGUMENT, str(exc)) from exc


async def _body(request: Request) -> object:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            raise invalid("body", f"is too large; send at most {_LARGEST_BODY} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise invalid("body", "is no JSON") from exc


def _call(request: Request, path: openapi.Path, message: Message) -> Call:
    try:
        left = parse_duration(request.headers.get(TIMEOUT, str(PATIENCE)))
    except ValueError as exc:
        raise invalid(TIMEOUT, str(exc)) from exc
    deadline = asyncio.get_running_loop().time() + min(left, _LONGEST_WAIT)
    return Call(path.operation, message, deadline, _metadata(request))


def _metadata(request: Request) -> Metadata:
    return to_pass_on(
        (name, value)
        for name, value in request.headers.items()
        if name.startswith(_OF_THE_CALLER) and value.isascii() and value.isprintable()
    )


def _problem(problem: Problem) -> JSONResponse:
    headers = {"retry-after": _RETRY_AFTER} if problem.is_elsewhere else None
    document = {
        "code": problem.code.name,
        "message": problem.message,
        "field": problem.field,
        "changed_nothing": problem.is_untouched,
    }
    return JSONResponse(document, problem.http_status, headers)


def _listen(where: HostPort) -> socket.socket:
    kind = family(where.host)
    dual = not where.host and kind is socket.AF_INET6
    try:
        return socket.create_server((where.host, where.port), family=kind, dualstack_ipv6=dual)
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise ConfigError([f"--http: cannot listen on {where}: {why}"]) from exc


async def _alive(_: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _openapi(_: Request) -> Response:
    return JSONResponse(openapi.document())


async def _page(_: Request) -> Response:
    return HTMLResponse(openapi.page())
