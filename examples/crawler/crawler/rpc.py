"""The gRPC side: the operations, health and reflection.

A client that stayed on its connection would go on asking a Master whose term is over. gRPC cannot
send away the clients of a server that goes on, and stopping a server cancels calls that arrive
meanwhile. So every connection gets its GOAWAY when it is a second old: calls under way finish on
it, the next one connects anew, through a forwarder to the leader of that moment. Idle clients
connect when they have something to say.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from crawler.calls import (
    FORWARDED_BY,
    OPERATIONS,
    PATIENCE,
    SERVED_BY,
    SERVICE,
    Call,
    Operation,
    to_pass_on,
)
from crawler.problems import Problem
from crawler.routing import Router
from sidecar.addresses import HostPort
from sidecar.errors import ConfigError

log = logging.getLogger(__name__)

GRACE = 5.0
"""Seconds that calls under way have to finish when their server is stopped."""
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # or a second Master on this port would go unnoticed
    ("grpc.max_receive_message_length", 1 << 20),
    ("grpc.max_connection_age_ms", 1000),
    ("grpc.max_connection_age_grace_ms", 60_000),
)
_LAST_TENTH = 0.1
_LONGEST_WAIT = 60.0


class RpcServer:
    """Serves on one port; an async context manager."""

    def __init__(self, where: HostPort, router: Router) -> None:
        self._where = where
        self._router = router
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(options=_OPTIONS)

    async def __aenter__(self) -> Self:
        handlers = {
            operation.name: grpc.unary_unary_rpc_method_handler(
                _Handler(operation, self._router).answer, response_serializer=_serialize
            )
            for operation in OPERATIONS.values()
        }
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, handlers),)
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        try:
            self._server.add_insecure_port(f"{self._where.host or any_host()}:{self._where.port}")
        except RuntimeError as exc:
            raise ConfigError([f"--grpc: cannot listen on {self._where}; give another"]) from exc
        await self._server.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE)

    async def ready(self) -> None:
        """Tell health checks that calls are welcome."""
        for service in ("", SERVICE):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)


class _Handler:
    """Answers one operation; requests come as bytes, so garbage is told without a traceback."""

    def __init__(self, operation: Operation, router: Router) -> None:
        self._operation = operation
        self._router = router

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> Message:
        try:
            call = _call(self._operation, request, context)
            reply = await self._router.route(call)
        except Problem as problem:
            await context.abort(problem.code, problem.message, problem.trailers)
            raise
        context.set_trailing_metadata(((SERVED_BY, reply.served_by),))
        return reply.message


def _call(
    operation: Operation, request: bytes, context: grpc.aio.ServicerContext[Any, Any]
) -> Call:
    try:
        message = operation.request.FromString(request)
    except DecodeError as exc:
        text = f"the request is no {operation.request.DESCRIPTOR.full_name}"
        raise Problem(grpc.StatusCode.INVALID_ARGUMENT, text) from exc
    metadata: Any = context.invocation_metadata() or ()
    pairs = tuple((str(key), value) for key, value in metadata)
    left: float | None = context.time_remaining()  # the stubs know nothing of None
    left = PATIENCE if left is None else min(left, _LONGEST_WAIT)
    # What we have to say at the deadline must be there before the client gives up.
    left -= min(left / 10, _LAST_TENTH)
    return Call(
        operation,
        message,
        asyncio.get_running_loop().time() + left,
        to_pass_on(pairs),
        is_forwarded=any(key == FORWARDED_BY for key, _ in pairs),
    )


def any_host() -> str:
    """Return gRPC's name of every address of this machine."""
    return "[::]" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 - that is the wish


def family(host: str) -> socket.AddressFamily:
    """Return the address family that a host to listen on belongs to."""
    if host:
        return socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
