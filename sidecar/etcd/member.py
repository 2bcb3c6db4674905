"""One etcd member on one channel: calls with a deadline, renewals, watches, authentication.

Rules that measurements taught (each has a test):

* One channel per member, never a multi-address target: that one does not leave a frozen member.
* gRPC's pings find a frozen server too late, or etcd forbids them. Liveness is an answer in
  time; the caller throws the whole channel away when one is missing.
* A timed-out stream is thrown away: a late answer must not be taken for the next one.
* grpc.aio and not grpclib: bare programs on both hand over equally fast (3.25 and 3.30 ms, p50 of
  240), and 10 MB less memory did not outweigh an HTTP/2 stack in pure Python by one author.
* `Authenticate` is refused when it carries an outdated token, so it carries none.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from sidecar.core.store import Batch, Guard, Proof, Range, RangeReply, Txn, TxnReply
from sidecar.errors import (
    CoordinatorError,
    LeaseNotFound,
    NotAuthenticated,
    PermissionDenied,
    Unavailable,
)
from sidecar.etcd import messages
from sidecar.etcd import rpc_pb2 as pb
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import Address
from sidecar.etcd.errors import AuthIsOff, TokenNeeded, from_cancel_reason, from_rpc_error

T = TypeVar("T")
M = TypeVar("M", bound=Message)

PAGE = 1000
"""Keys read in one request; larger ranges are paged at one revision."""

_RECEIVE_LIMIT = 64 * 1024 * 1024
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", _RECEIVE_LIMIT),
)
# Streams ask to be ended by a member that has lost its leader, instead of staying silent.
_REQUIRE_LEADER = (("hasleader", "true"),)


class Member:
    """A connection to one member; unusable after `close`."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self.address = address
        self._credentials = credentials
        self._token = ""
        self._auth_is_off = False
        self._authenticating = asyncio.Lock()
        self._channel = _channel(address, credentials)
        call = self._channel.unary_unary
        stream: Any = self._channel.stream_stream  # the stubs want an iterator; we write by hand
        self._range = call(*_method("KV/Range", pb.RangeResponse))
        self._txn = call(*_method("KV/Txn", pb.TxnResponse))
        self._grant = call(*_method("Lease/LeaseGrant", pb.LeaseGrantResponse))
        self._revoke = call(*_method("Lease/LeaseRevoke", pb.LeaseRevokeResponse))
        self._login = call(*_method("Auth/Authenticate", pb.AuthenticateResponse))
        self._keep_alive = stream(*_method("Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse))
        self._watch = stream(*_method("Watch/Watch", pb.WatchResponse))
        self._renewals: Any = None
        self._renewals_token = ""
        self._denied_token = ""
        self._renewing = asyncio.Lock()
        self._open_watches: set[Any] = set()
        self._limits: set[asyncio.Timeout] = set()

    def __str__(self) -> str:
        return str(self.address)

    async def close(self) -> None:
        """Break every stream and close the channel; calls under way end as `Unavailable`."""
        self._drop_renewals()
        for call in self._open_watches:
            call.cancel()
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)
        await self._channel.close(None)

    async def grant(self, lease: int, ttl: float) -> float:
        """Create a lease; return the granted TTL in seconds."""
        request = pb.LeaseGrantRequest(ID=lease, TTL=math.ceil(ttl))
        reply = await self._call(self._grant, request)
        return float(reply.TTL)

    async def revoke(self, lease: int) -> None:
        """End a lease; one that is gone already is as good."""
        try:
            await self._call(self._revoke, pb.LeaseRevokeRequest(ID=lease))
        except LeaseNotFound:
            return

    async def txn(self, txn: Txn) -> TxnReply:
        """Run a transaction."""
        return messages.txn_reply(await self._call(self._txn, messages.txn_request(txn)))

    async def read(self, key: bytes, end: bytes, *, keys_only: bool) -> RangeReply:
        """Read [key, end) at one revision."""
        request = messages.range_request(key, end, limit=PAGE, keys_only=keys_only)
        page = await self._call(self._range, request)
        header = messages.header(page.header)
        kvs = [messages.key_value(kv) for kv in page.kvs]
        while page.more:
            request = messages.range_request(
                kvs[-1].key + b"\0",
                end,
                limit=PAGE,
                revision=header.revision,
                keys_only=keys_only,
            )
            page = await self._call(self._range, request)
            kvs += [messages.key_value(kv) for kv in page.kvs]
        return RangeReply(header, tuple(kvs))

    async def prove(self, lease: int, keys: Sequence[bytes]) -> Proof:
        """Renew, then read on this same channel."""
        renewal = await self._with_token(lambda: self._renew(lease))
        if renewal.TTL <= 0:
            return Proof(0.0, renewal.header.raft_term, None)
        read = await self.txn(Txn(then=tuple(Range(key) for key in keys))) if keys else None
        return Proof(float(renewal.TTL), renewal.header.raft_term, read)

    async def keep_token_fresh(self) -> None:
        """Use the token once: etcd's simple tokens last from their last use on each member."""
        try:
            await self.txn(Txn(guards=(Guard(b"\0", 0),)))
        except PermissionDenied:
            return  # the token was taken, which is all that was wanted

    @asynccontextmanager
    async def watch(
        self, key: bytes, end: bytes, start_revision: int
    ) -> AsyncIterator[AsyncIterator[Batch]]:
        """Open a watch and wait until etcd has confirmed it."""
        call = await self._with_token(lambda: self._watch_or_need_token(key, end, start_revision))
        self._open_watches.add(call)
        try:
            yield _batches(call)
        finally:
            self._open_watches.discard(call)
            call.cancel()

    async def _watch_or_need_token(self, key: bytes, end: bytes, start_revision: int) -> Any:
        """Open a watch; etcd 3.5 calls an outdated token "permission denied" here."""
        used = self._token
        try:
            return await self._open_watch(key, end, start_revision)
        except PermissionDenied as exc:
            if not used or used == self._denied_token:
                raise
            self._denied_token = used
            raise TokenNeeded(str(exc)) from exc

    @asynccontextmanager
    async def _until_closed(self) -> AsyncIterator[None]:
        """Break off once the member is closed.

        gRPC does not: a stream's first write that waits for a connection goes on waiting.
        """
        try:
            async with asyncio.timeout(None) as limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError as exc:
            raise Unavailable("the channel was closed") from exc

    async def _open_watch(self, key: bytes, end: bytes, start_revision: int) -> Any:
        async with self._until_closed():
            return await self._open_watch_now(key, end, start_revision)

    async def _open_watch_now(self, key: bytes, end: bytes, start_revision: int) -> Any:
        with _errors_of_grpc():
            call = self._watch(metadata=self._metadata(*_REQUIRE_LEADER))
            try:
                await call.write(messages.watch_request(key, end, start_revision))
                _check_watch(await call.read())
            except BaseException:
                call.cancel()
                raise
            return call

    async def _renew(self, lease: int) -> pb.LeaseKeepAliveResponse:
        async with self._renewing:
            try:
                with _errors_of_grpc():
                    if self._renewals_token != self._token:
                        self._drop_renewals()  # it was opened with an outdated one
                    if self._renewals is None:
                        self._renewals_token = self._token
                        metadata = self._metadata(*_REQUIRE_LEADER)
                        self._renewals = self._keep_alive(metadata=metadata)
                    stream = self._renewals  # whoever closes the member in between drops it
                    await stream.write(pb.LeaseKeepAliveRequest(ID=lease))
                    reply = await stream.read()
                return _renewed(reply, lease)
            except BaseException:
                self._drop_renewals()
                raise

    def _drop_renewals(self) -> None:
        if self._renewals is not None:
            self._renewals.cancel()
            self._renewals = None

    async def _call(self, method: Callable[..., Awaitable[T]], request: Message) -> T:
        async def once() -> T:
            with _errors_of_grpc():
                return await method(request, metadata=self._metadata())

        return await self._with_token(once)

    async def _with_token(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run an attempt; where it needs a (new) token, get one and run it once more."""
        if not self._credentials.user:
            try:
                return await attempt()
            except TokenNeeded as exc:
                raise NotAuthenticated(f"{exc}; give --user and --password-file") from exc
        used = self._token
        if used or self._auth_is_off:
            with contextlib.suppress(TokenNeeded):
                return await attempt()
        await self._authenticate(used)
        try:
            return await attempt()
        except TokenNeeded as exc:
            raise NotAuthenticated(f"a new token was not accepted: {exc}") from exc

    async def _authenticate(self, used: str) -> None:
        async with self._authenticating:
            if self._token != used:
                return  # another call has renewed it meanwhile
            request = pb.AuthenticateRequest(
                name=self._credentials.user, password=self._credentials.password
            )
            try:
                with _errors_of_grpc():
                    reply = await self._login(request)
            except AuthIsOff:
                self._token, self._auth_is_off = "", True
            except TokenNeeded as exc:
                raise NotAuthenticated(f"no token is to be had: {exc}") from exc
            else:
                self._token, self._auth_is_off = reply.token, False

    def _metadata(self, *extra: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        return (("token", self._token), *extra) if self._token else extra


def _method(
    name: str, reply: type[M]
) -> tuple[str, Callable[[Message], bytes], Callable[[bytes], M]]:
    """Return what a channel needs to call one method of etcd's API."""
    return f"/etcdserverpb.{name}", _serialize, reply.FromString


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _channel(address: Address, credentials: Credentials) -> grpc.aio.Channel:
    options = [*_OPTIONS, ("grpc.default_authority", address.authority)]
    if not address.endpoint.is_secure:
        return grpc.aio.insecure_channel(address.target, options=options)
    options.append(("grpc.ssl_target_name_override", address.endpoint.host))
    secrets = grpc.ssl_channel_credentials(credentials.cacert, credentials.key, credentials.cert)
    return grpc.aio.secure_channel(address.target, secrets, options=options)


async def _batches(call: Any) -> AsyncIterator[Batch]:
    while True:
        with _errors_of_grpc():
            reply = await call.read()
        _check_watch(reply)
        yield messages.batch(reply)


def _is_end(reply: object) -> bool:
    return reply is grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs


def _renewed(reply: Any, lease: int) -> pb.LeaseKeepAliveResponse:
    if _is_end(reply) or lease != reply.ID:
        raise Unavailable("the stream of renewals ended")
    renewed: pb.LeaseKeepAliveResponse = reply
    return renewed


def _check_watch(reply: pb.WatchResponse) -> None:
    """Raise what a watch's answer says; `canceled` wins over `created`, which it may carry too."""
    if _is_end(reply):
        raise Unavailable("the watch ended")
    if reply.canceled:
        raise from_cancel_reason(reply.cancel_reason, reply.compact_revision)


@contextmanager
def _errors_of_grpc() -> Iterator[None]:
    """Map what gRPC raises; a call cancelled by its channel is a lost call, not our end."""
    try:
        yield
    except CoordinatorError:
        raise
    except grpc.RpcError as exc:
        raise from_rpc_error(exc) from exc
    except (asyncio.InvalidStateError, grpc.aio.BaseError) as exc:
        raise Unavailable(f"the stream is finished: {exc}") from exc
    except asyncio.CancelledError as exc:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Unavailable("the channel was closed") from exc
