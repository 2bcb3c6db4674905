"""The other Masters: passes calls on to the one that leads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from crawler.calls import FORWARDED_BY, SERVED_BY, Call, Reply
from crawler.problems import from_rpc, unanswered, unreachable
from crawler.standing import target
from sidecar.client import LeaderInfo

_CONNECT_WITHIN = 0.25
_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(slots=True)
class _Link:
    """A channel to one Master, and how many calls use it."""

    address: str
    channel: grpc.aio.Channel
    users: int = 0


class Peers:
    """The way to the leader; an async context manager."""

    def __init__(self, master_id: str, grpc_port: int) -> None:
        self._master_id = master_id
        self._grpc_port = grpc_port
        self._token = 0
        self._link: _Link | None = None
        self._running: dict[Any, int] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._link is not None:
            await self._link.channel.close(None)

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
        async with self._linked(leader) as channel:
            await _connected(channel, leader.id)
            return await self._forward(channel, call, leader)

    async def _forward(self, channel: grpc.aio.Channel, call: Call, leader: LeaderInfo) -> Reply:
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

    @asynccontextmanager
    async def _linked(self, leader: LeaderInfo) -> AsyncIterator[grpc.aio.Channel]:
        """Lend the channel to a leader; that of an earlier one is closed by its last user."""
        try:
            address = target(leader, self._grpc_port)
        except ValueError as exc:
            raise unreachable(leader.id) from exc
        link, old = self._link, None
        if link is None or link.address != address:
            old, link = link, _Link(address, grpc.aio.insecure_channel(address, options=_OPTIONS))
            self._link = link
        if old is not None and not old.users:
            await old.channel.close(None)
        link.users += 1
        try:
            yield link.channel
        finally:
            link.users -= 1
            if not link.users and link is not self._link:
                await link.channel.close(None)


async def _connected(channel: grpc.aio.Channel, leader: str) -> None:
    """Wait for a connection: what fails before there is one has certainly not been sent."""
    if channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY:
        return
    try:
        async with asyncio.timeout(_CONNECT_WITHIN):
            await channel.channel_ready()
    except TimeoutError as exc:
        raise unreachable(leader) from exc
