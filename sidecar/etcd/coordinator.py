"""`EtcdCoordinator`: several endpoints behind one `sidecar.election.ports.Coordinator`.

One endpoint is in use at a time, for renewals, reads and watches alike: a watch is as alive as
the last round trip beside it. Whoever gets no answer from it, throws its channel away and moves
everybody to the next one; the broken watch tells its reader, who opens it anew there. Nothing
is repeated here: only the caller knows what may be sent twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self, TypeVar

from sidecar.core.store import Batch, Proof, RangeReply, Txn, TxnReply
from sidecar.election.background import Background
from sidecar.errors import CoordinatorError, Unavailable
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import Address, Endpoint, parse_endpoints, resolve
from sidecar.etcd.member import Member
from sidecar.etcd.messages import PreparedTxn

log = logging.getLogger(__name__)

T = TypeVar("T")

_TOKEN_FRESH = 60.0
"""Seconds between two uses of the token on each idle member; etcd's tokens last 300."""

_WATCH_OPENED_WITHIN = 5.0
_RESOLVE_AGAIN = 1.0
"""Seconds between two look-ups of names, at the least."""
_RESOLVE_ANYHOW = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds after which names are looked up although all is well, the last ones again and again.

Members that start together with us get their addresses one after the other, and who knows but one
of them finds out when that one dies.
"""


class EtcdCoordinator:
    """etcd as a store for elections; an async context manager.

    Args:
        endpoints: as for `--endpoints`: text, or what `parse_endpoints` returns.
        credentials: user and password, certificates; or what returns them, and is asked before
            each connection.

    Raises:
        ValueError: an endpoint cannot be parsed.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str | Endpoint],
        credentials: Credentials | Callable[[], Credentials] | None = None,
    ) -> None:
        parts = [endpoints] if isinstance(endpoints, str) else endpoints
        self._endpoints: tuple[Endpoint, ...] = tuple(
            endpoint
            for part in parts
            for endpoint in (parse_endpoints(part) if isinstance(part, str) else (part,))
        )
        self._given = credentials or Credentials()
        self._addresses: tuple[Address, ...] = ()
        self._members: dict[Address, Member] = {}
        self._current: Address | None = None
        self._resolved = asyncio.Event()
        self._stale = asyncio.Event()
        self._tasks = Background()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._stale.set()
        self._tasks.start(self._keep_resolving(), name="etcd-names")
        if self._credentials.user:
            self._tasks.start(self._keep_tokens_fresh(), name="etcd-tokens")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._tasks.__aexit__(kind, exc, traceback)
        finally:
            for member in list(self._members.values()):
                await member.close()
            self._members.clear()

    @property
    def width(self) -> int:
        """How many addresses there are to try."""
        return max(len(self._addresses), 1)

    @property
    def current(self) -> str:
        """The endpoint in use, for people to read."""
        return str(self._address()) if self._addresses else "none"

    @property
    def _credentials(self) -> Credentials:
        """What to connect with now."""
        return self._given if isinstance(self._given, Credentials) else self._given()

    async def grant(self, lease: int, ttl: float, *, timeout: float) -> float:
        """Create a lease; see the port."""
        return await self._on_current(lambda member: member.grant(lease, ttl), timeout)

    async def revoke(self, lease: int, *, timeout: float) -> None:
        """End a lease; see the port."""
        await self._on_current(lambda member: member.revoke(lease), timeout)

    async def prove(self, lease: int, keys: Sequence[bytes], *, timeout: float) -> Proof:
        """Renew and read on one channel; see the port."""
        return await self._on_current(lambda member: member.prove(lease, keys), timeout)

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        """Run one transaction; see the port."""
        return await self._on_current(lambda member: member.txn(txn), timeout)

    def prepare(self, txn: Txn) -> Txn:
        """Build etcd's message now; see the port."""
        return PreparedTxn.of(txn)

    async def read(
        self, key: bytes, end: bytes, *, timeout: float, keys_only: bool = False
    ) -> RangeReply:
        """Read a range at one revision; see the port."""
        return await self._on_current(
            lambda member: member.read(key, end, keys_only=keys_only), timeout
        )

    @asynccontextmanager
    async def watch(
        self, key: bytes, end: bytes, *, start_revision: int
    ) -> AsyncIterator[AsyncIterator[Batch]]:
        """Watch a range; see the port."""
        member = await self._member(_WATCH_OPENED_WITHIN)
        opening = member.watch(key, end, start_revision)
        batches = await self._answered(member, opening.__aenter__(), _WATCH_OPENED_WITHIN)
        try:
            yield self._watched(member, batches)
        finally:
            await opening.__aexit__(None, None, None)

    async def _watched(self, member: Member, batches: AsyncIterator[Batch]) -> AsyncIterator[Batch]:
        try:
            async for batch in batches:
                yield batch
        except Unavailable:
            await self._leave(member)
            raise

    async def _on_current(self, action: Callable[[Member], Awaitable[T]], timeout: float) -> T:
        member = self._known_member() or await self._member(timeout)
        return await self._answered(member, action(member), timeout)

    async def _answered(self, member: Member, action: Awaitable[T], within: float) -> T:
        try:
            async with asyncio.timeout(within):
                answer = await action
        except TimeoutError as exc:
            await self._leave(member)
            raise Unavailable(f"{member} did not answer within {within:.3g} s") from exc
        except Unavailable as exc:
            await self._leave(member)
            raise Unavailable(f"{member}: {exc}") from exc
        return answer

    def _known_member(self) -> Member | None:
        return self._member_at(self._address()) if self._addresses else None

    async def _member(self, within: float) -> Member:
        """Return the member in use, once a name has an address."""
        if not self._addresses:
            self._stale.set()
            try:
                async with asyncio.timeout(within):
                    await self._resolved.wait()
            except TimeoutError as exc:
                names = ", ".join(str(endpoint) for endpoint in self._endpoints)
                raise Unavailable(f"none of these names has an address: {names}") from exc
        return self._member_at(self._address())

    def _member_at(self, address: Address) -> Member:
        member = self._members.get(address)
        if member is None:
            member = self._members[address] = Member(address, self._credentials)
        return member

    def _address(self) -> Address:
        """Return the address in use; the first one where none was chosen, or it is gone."""
        if self._current not in self._addresses:
            self._current = self._addresses[0]
        return self._current

    async def _leave(self, member: Member) -> None:
        """Throw a member's channel away; everybody moves on where it was the one in use."""
        if self._members.get(member.address) is not member:
            return  # somebody else was faster
        del self._members[member.address]
        self._stale.set()  # a name may have a new address: a restarted pod
        if self._addresses and self._address() == member.address:
            after = self._addresses.index(member.address) + 1
            self._current = self._addresses[after % len(self._addresses)]
        await member.close()

    async def _keep_resolving(self) -> None:
        """Look names up beside the calls: a slow name server must not cost a lease."""
        for pause in itertools.chain(_RESOLVE_ANYHOW, itertools.repeat(_RESOLVE_ANYHOW[-1])):
            is_doubted = await self._is_stale(pause)
            found = await resolve(self._endpoints)
            if found:
                if not is_doubted and self._current is not None:
                    # What works is not left because the name says something else for now.
                    found = tuple(dict.fromkeys((*found, self._current)))
                self._addresses = found
                self._resolved.set()
                for member in [m for a, m in self._members.items() if a not in found]:
                    await self._leave(member)  # with it its watch, which moves on
            await asyncio.sleep(_RESOLVE_AGAIN)

    async def _is_stale(self, within: float) -> bool:
        """Wait so many seconds for a call that has failed; return whether one has."""
        try:
            async with asyncio.timeout(within):
                await self._stale.wait()
        except TimeoutError:
            return False
        self._stale.clear()
        return True

    async def _keep_tokens_fresh(self) -> None:
        """Use the token on every member, so that a failover need not authenticate first."""
        await self._resolved.wait()
        while True:
            for address in self._addresses:
                if address == self._address():
                    continue
                member = self._member_at(address)
                try:
                    await self._answered(member, member.keep_token_fresh(), _WATCH_OPENED_WITHIN)
                except CoordinatorError as exc:
                    log.debug("token not refreshed endpoint=%s error=%s", member, exc)
            await asyncio.sleep(_TOKEN_FRESH)
