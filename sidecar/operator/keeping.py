"""Keeps the webhooks' certificate: in the Secret, in this replica's TLS, in the configurations.

Every replica does it, under the Secret's version, so it does not matter which one. With another
issuer (cert-manager) the Secret is only read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import logging
import os
import random
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.election.backoff import Backoff
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ApiRefused, ConfigError
from sidecar.kube.api import CONFLICT
from sidecar.operator import certificates
from sidecar.operator.api import Api, core_path, group_path
from sidecar.operator.certificates import CA, CERT, KEY, UNREADABLE, Bundle, read_bundle
from sidecar.operator.metrics import OperatorMetrics

log = logging.getLogger(__name__)

_EVERY = 600.0  # seconds between two looks
_EVERY_OTHERS = 30.0  # the same where another issuer renews, and tells nobody
_LONGEST_PAUSE = 10.0  # seconds after a look that failed, also because there is nothing yet
_HOOKS = "admissionregistration.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Webhooks:
    """Where the certificate is kept, and who has to trust it.

    Attributes:
        names: DNS names of the Service.
        is_ours: we issue it; else somebody else fills the Secret and the configurations.
        mutating: names of MutatingWebhookConfigurations; `validating` likewise.
    """

    namespace: str
    secret: str
    names: Sequence[str]
    is_ours: bool = True
    mutating: Sequence[str] = ()
    validating: Sequence[str] = ()


class CertificateKeeper:
    """Looks after the certificate; `tls` can be served with once `ready` is set."""

    def __init__(
        self, api: Api, webhooks: Webhooks, clock: Clock, metrics: OperatorMetrics
    ) -> None:
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.ready = asyncio.Event()
        self._api = api
        self._webhooks = webhooks
        self._clock = clock
        self._metrics = metrics
        self._shown = b""

    async def run(self) -> None:
        """Look after it until cancelled; errors are logged and tried again."""
        rng = random.SystemRandom()
        backoff = Backoff(rng, longest=_LONGEST_PAUSE, first=0.5)
        while True:
            try:
                await self.look()
                backoff.reset()
                every = _EVERY if self._webhooks.is_ours else _EVERY_OTHERS
                pause = every * rng.uniform(0.8, 1.2)
            except (ApiError, ConfigError) as exc:
                log.warning("certificate not looked after error=%s", exc)
                pause = backoff.next()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Renew what is due, have it trusted, serve with it.

        Raises:
            ApiError: a request failed.
            ConfigError: the Secret holds no certificate yet, or one that cannot be used.
        """
        data = await self._data()
        hooks = self._webhooks
        if not {CERT, KEY} <= data.keys():
            raise ConfigError([f"Secret {hooks.secret}: holds no certificate yet"])
        if hooks.is_ours:
            # First, or those who call would not trust what they are shown.
            await self._have_it_trusted()
        if data[CERT] != self._shown:
            try:
                until = certificates.usable_until(data[CERT], data[KEY])
                await asyncio.to_thread(self._serve, data)
            except (*UNREADABLE, OSError) as exc:  # OSError: ssl's, too
                raise ConfigError([f"Secret {hooks.secret}: cannot be served with: {exc}"]) from exc
            self._shown = data[CERT]
            self._metrics.certificate_until = until.timestamp()
            log.info("certificate in use until=%s", until.isoformat())
        self.ready.set()

    async def _data(self) -> dict[str, bytes]:
        """Return the Secret's data, renewed where that is due and ours to do."""
        hooks = self._webhooks
        for _ in range(5):
            found = await self._secret()
            data = _decoded(found)
            if not hooks.is_ours:
                return data
            now = dt.datetime.fromtimestamp(self._clock.wall(), dt.UTC)
            bundle = await asyncio.to_thread(
                certificates.renewed, read_bundle(data), hooks.names, now
            )
            if bundle is None:
                return data
            with contextlib.suppress(_Raced):
                await self._write(found, bundle)
                return bundle.data()
        raise ApiRefused(CONFLICT, f"Secret {hooks.secret} changes all the time")

    async def _secret(self) -> dict[str, Any] | None:
        return await self._api.find(
            core_path(self._webhooks.namespace, "secrets", self._webhooks.secret)
        )

    async def _write(self, found: dict[str, Any] | None, bundle: Bundle) -> None:
        hooks = self._webhooks
        data = {k: base64.b64encode(v).decode() for k, v in bundle.data().items()}
        try:
            if found is None:
                secret = {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {"name": hooks.secret, "namespace": hooks.namespace},
                    "type": "kubernetes.io/tls",
                    "data": data,
                }
                await self._api.create(core_path(hooks.namespace, "secrets"), secret)
            else:
                # Of the version that was decided upon, and no other.
                path = core_path(hooks.namespace, "secrets", hooks.secret)
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                await self._api.patch(path, {"metadata": version, "data": data})
        except ApiRefused as exc:
            if exc.status == CONFLICT:
                raise _Raced from exc
            raise

    def _serve(self, data: dict[str, bytes]) -> None:
        """Show it from the next connection on."""
        # In memory: ssl takes files only, and the key belongs on no disk.
        with _in_memory(data[CERT]) as chain, _in_memory(data[KEY]) as key:
            # With a password, or ssl would ask the terminal for one.
            self.tls.load_cert_chain(chain, key, password="")

    async def _have_it_trusted(self) -> None:
        for kind, names in (
            ("mutatingwebhookconfigurations", self._webhooks.mutating),
            ("validatingwebhookconfigurations", self._webhooks.validating),
        ):
            for name in names:
                path = group_path(_HOOKS, "", kind, name)
                found = await self._api.find(path)
                if found is None:
                    continue
                # Read after the configuration, whose version is then tested: another replica that
                # has renewed the authority meanwhile is not undone.
                trusted = _decoded(await self._secret()).get(CA, b"")
                bundle = base64.b64encode(trusted).decode()
                patch = [
                    {
                        "op": "add",
                        "path": f"/webhooks/{n}/clientConfig/caBundle",
                        "value": bundle,
                    }
                    for n, hook in enumerate(found.get("webhooks") or ())
                    if hook["clientConfig"].get("caBundle") != bundle
                ]
                if patch:
                    version = found["metadata"]["resourceVersion"]
                    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
                    await self._api.patch_json(path, [test, *patch])


def _decoded(secret: Mapping[str, Any] | None) -> dict[str, bytes]:
    data = (secret or {}).get("data") or {}
    return {name: base64.b64decode(text) for name, text in data.items()}


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    with os.fdopen(os.memfd_create("leader-sidecar"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


class _Raced(Exception):
    """Another replica was faster."""
