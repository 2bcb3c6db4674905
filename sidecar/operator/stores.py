"""The etcds of all Elections: one connection for each cluster, whoever shares it.

An observer asks for an answer when it has heard none for a while; on a shared connection one
question serves all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sidecar.core.store import Proof, RangeReply, Txn, TxnReply
from sidecar.election.background import Background
from sidecar.election.contact import Contact
from sidecar.election.ports import Clock, Coordinator, NoMeter
from sidecar.errors import ConfigError
from sidecar.etcd.coordinator import EtcdCoordinator
from sidecar.etcd.credentials import Credentials
from sidecar.operator.api import Api, Gate, core_path
from sidecar.operator.spec import Store


async def credentials(api: Api, namespace: str, store: Store) -> Credentials:
    """Read the Secrets that an Election names.

    Raises:
        ConfigError: a Secret lacks what it shall hold.
        ApiRefused: it may not be read, or is not there.
        NoAnswer: nothing was heard.
    """
    tls = await _secret(api, namespace, store.tls_secret)
    user = await _secret(api, namespace, store.password_secret)
    needed = [(store.tls_secret, tls, "ca.crt")] if store.tls_secret else []
    if store.client_certificate:
        needed += [(store.tls_secret, tls, name) for name in ("tls.crt", "tls.key")]
    if store.password_secret:
        needed.append((store.password_secret, user, "password"))
    if missing := [f"Secret {s}: lacks {name}" for s, data, name in needed if name not in data]:
        raise ConfigError(missing)
    shows = store.client_certificate
    return Credentials(
        user=store.user,
        password=user.get("password", b"").decode(errors="replace").rstrip("\r\n"),
        cacert=tls.get("ca.crt"),
        cert=tls.get("tls.crt") if shows else None,
        key=tls.get("tls.key") if shows else None,
    )


async def _secret(api: Api, namespace: str, name: str) -> dict[str, bytes]:
    if not name:
        return {}
    found = await api.get(core_path(namespace, "secrets", name))
    try:
        data = found.get("data") or {}
        return {k: base64.b64decode(v, validate=True) for k, v in data.items()}
    except (binascii.Error, AttributeError) as exc:
        raise ConfigError([f"Secret {name}: its data cannot be read"]) from exc


class SharedContact(Contact):
    """One election's contact: trouble of its own, silence in common with others of the cluster."""

    def __init__(self, clock: Clock, cluster: Contact, changed: Callable[[], None]) -> None:
        super().__init__(clock, NoMeter())
        self._cluster = cluster
        self._changed = changed

    def answered(self) -> None:
        """Note an answer."""
        was = self.trouble
        super().answered()
        self._cluster.answered()
        if was:
            self._changed()

    def failed(self, what: str, exc: Exception) -> None:
        """Note a call without an answer, or with a no."""
        was = self.trouble
        super().failed(what, exc)
        if not was:
            self._changed()

    def silent_for(self) -> float:
        """Return the seconds since the cluster last answered anybody."""
        return self._cluster.silent_for()


class Gated:
    """A store whose writes ask the gate directly before they are sent."""

    def __init__(self, inner: Coordinator, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate
        self.watch = inner.watch

    @property
    def width(self) -> int:
        """How many endpoints there are to try."""
        return self._inner.width

    async def grant(self, lease: int, ttl: float, *, timeout: float) -> float:
        """Create a lease; see the port."""
        self._gate()
        return await self._inner.grant(lease, ttl, timeout=timeout)

    async def revoke(self, lease: int, *, timeout: float) -> None:
        """End a lease; see the port. It is our own, so it may go at any time."""
        await self._inner.revoke(lease, timeout=timeout)

    async def prove(self, lease: int, keys: Sequence[bytes], *, timeout: float) -> Proof:
        """Renew and read; see the port."""
        return await self._inner.prove(lease, keys, timeout=timeout)

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        """Run one transaction; see the port."""
        self._gate()
        return await self._inner.txn(txn, timeout=timeout)

    def prepare(self, txn: Txn) -> Txn:
        """See the port."""
        return self._inner.prepare(txn)

    async def read(
        self, key: bytes, end: bytes, *, timeout: float, keys_only: bool = False
    ) -> RangeReply:
        """Read a range; see the port."""
        return await self._inner.read(key, end, timeout=timeout, keys_only=keys_only)


@dataclass(slots=True)
class Shared:
    """A connection that is open as long as somebody uses it."""

    coordinator: EtcdCoordinator
    contact: Contact
    users: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    unused: asyncio.Event = field(default_factory=asyncio.Event)


class Stores:
    """Connections by what they are made of; an async context manager.

    Args:
        clock: of this machine.
        tasks: where connections are held open; entered before and left after every use.
    """

    def __init__(self, clock: Clock, tasks: Background) -> None:
        self._clock = clock
        self._tasks = tasks
        self._open: dict[tuple[tuple[str, ...], Credentials], Shared] = {}

    def __len__(self) -> int:
        return len(self._open)

    @asynccontextmanager
    async def connected(self, store: Store, who: Credentials) -> AsyncIterator[Shared]:
        """Use the connection to an etcd, made where there is none.

        Raises:
            ConfigError: an endpoint cannot be one, or a certificate is none.
        """
        key = (store.endpoints, who)
        shared = self._open.get(key)
        if shared is None:
            try:
                coordinator = EtcdCoordinator(store.endpoints, who)
            except ValueError as exc:
                raise ConfigError([f"spec.etcd.endpoints: {exc}"]) from exc
            shared = self._open[key] = Shared(coordinator, Contact(self._clock, NoMeter()))
            self._tasks.start(self._hold(shared), name="operator-store")
        shared.users += 1
        try:
            await shared.ready.wait()
            yield shared
        finally:
            shared.users -= 1
            if not shared.users:
                del self._open[key]
                shared.unused.set()

    async def _hold(self, shared: Shared) -> None:
        async with shared.coordinator:
            shared.ready.set()
            await shared.unused.wait()
