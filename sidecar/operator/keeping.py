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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.election.backoff import Backoff
from sidecar.election.ports import Clock
from sidecar.errors import ApiError, ApiRefused
from sidecar.kube.api import CONFLICT
from sidecar.operator import certificates
from sidecar.operator.api import Api, core_path, group_path
from sidecar.operator.certificates import CA, CERT, KEY, Bundle, read_bundle
from sidecar.operator.metrics import OperatorMetrics

log = logging.getLogger(__name__)

_EVERY = 600.0  # seconds between two looks
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
        backoff = Backoff(rng, longest=60.0, first=0.5)
        while True:
            try:
                await self.look()
                backoff.reset()
                pause = _EVERY * rng.uniform(0.8, 1.2)
            except ApiError as exc:
                log.warning("certificate not looked after error=%s", exc)
                pause = backoff.next()
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Renew what is due, serve with what there is, have it trusted.

        Raises:
            ApiError: a request failed.
        """
        data = await self._data()
        if not {CERT, KEY} <= data.keys():
            log.warning("the Secret holds no certificate yet secret=%s", self._webhooks.secret)
            return
        if data[CERT] != self._shown:
            await asyncio.to_thread(self._serve, data)
            self._shown = data[CERT]
            until = certificates.not_after(data[CERT])
            self._metrics.certificate_until = until.timestamp()
            log.info("certificate in use until=%s", until.isoformat())
        if self._webhooks.is_ours:
            await self._have_it_trusted(data[CA])
        self.ready.set()

    async def _data(self) -> dict[str, bytes]:
        """Return the Secret's data, renewed where that is due and ours to do."""
        hooks = self._webhooks
        path = core_path(hooks.namespace, "secrets", hooks.secret)
        for _ in range(5):
            found = await self._api.find(path)
            data = {k: base64.b64decode(v) for k, v in ((found or {}).get("data") or {}).items()}
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
            self.tls.load_cert_chain(chain, key)

    async def _have_it_trusted(self, trusted: bytes) -> None:
        bundle = base64.b64encode(trusted).decode()
        for kind, names in (
            ("mutatingwebhookconfigurations", self._webhooks.mutating),
            ("validatingwebhookconfigurations", self._webhooks.validating),
        ):
            for name in names:
                path = group_path(_HOOKS, "", kind, name)
                found = await self._api.find(path)
                if found is None:
                    continue
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


@contextlib.contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    with os.fdopen(os.memfd_create("leader-sidecar"), "wb") as file:
        file.write(content)
        file.flush()
        yield f"/proc/self/fd/{file.fileno()}"


class _Raced(Exception):
    """Another replica was faster."""
