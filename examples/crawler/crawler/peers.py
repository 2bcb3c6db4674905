"""The other Masters: passes calls on to the one that leads."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc

from crawler.calls import FORWARDED_BY, SERVED_BY, Call, Reply
from crawler.problems import from_rpc, unanswered, unreachable
from crawler.standing import target
from sidecar.client import LeaderInfo
from sidecar.election.background import Background

_CONNECT_WITHIN = 0.25
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


class Peers:
    """One channel, to the leader; an async context manager."""

    def __init__(self, master_id: str, grpc_port: int) -> None:
        self._master_id = master_id
        self._grpc_port = grpc_port
        self._address = ""
        self._token = 0
        self._channel: grpc.aio.Channel | None = None
        self._running: dict[Any, int] = {}
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._tasks.__aexit__(kind, exc, traceback)
        if self._channel is not None:
            await self._channel.close(None)

    def leader_changed(self, token: int) -> None:
        """Give up calls to earlier leaders that may be sent again; the others wait on."""
        self._token = max(self._token, token)
        for running, older in list(self._running.items()):
            if older < self._token:
                running.cancel()

    async def forward(self, call: Call, leader: LeaderInfo) -> Reply:
        """Let the leader carry out a call, within the call's deadline.

        Raises:
            Problem: what the leader said, or that it could not be asked.
        """
        channel = await self._connected(leader)
        method: Any = channel.unary_unary(
            call.operation.method,
            request_serializer=call.operation.request.SerializeToString,
            response_deserializer=call.operation.reply.FromString,
        )
        running = method(
            call.request,
            timeout=call.left,
            metadata=(*call.metadata, (FORWARDED_BY, self._master_id)),
        )
        if call.operation.is_idempotent:
            self._running[running] = leader.token
        try:
            message = await running
            served_by = dict(await running.trailing_metadata()).get(SERVED_BY, leader.id)
            return Reply(message, str(served_by), is_forwarded=True)
        except grpc.aio.AioRpcError as exc:
            raise from_rpc(exc, leader.id) from exc
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise unanswered(f"the leader {leader.id}") from exc  # there is a newer one
        finally:
            self._running.pop(running, None)

    async def _connected(self, leader: LeaderInfo) -> grpc.aio.Channel:
        """Return a channel that is connected: what fails before has certainly not been sent."""
        try:
            address = target(leader, self._grpc_port)
        except ValueError as exc:
            raise unreachable(leader.id) from exc
        if self._channel is None or address != self._address:
            if self._channel is not None:
                self._tasks.start(self._channel.close(None), name=f"leave-{self._address}")
            self._address = address
            self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        channel = self._channel
        if channel.get_state(try_to_connect=True) is not grpc.ChannelConnectivity.READY:
            try:
                async with asyncio.timeout(_CONNECT_WITHIN):
                    await channel.channel_ready()
            except TimeoutError as exc:
                raise unreachable(leader.id) from exc
        return channel
