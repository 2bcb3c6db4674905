"""The certificate is trusted before it is shown, and nothing in its Secret ends a replica."""

import asyncio
import base64
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from sidecar.election.background import Background
from sidecar.election.ports import SystemClock
from sidecar.errors import ApiRefused, ConfigError
from sidecar.operator.api import Api
from sidecar.operator.certificates import Bundle, read_bundle, renewed
from sidecar.operator.keeping import CertificateKeeper, Webhooks
from sidecar.operator.metrics import OperatorMetrics
from tests.operator.test_certificates import encrypted
from tests.operator.things import Document
from tests.support.tls import not_after

SECRETS = "/api/v1/namespaces/ops/secrets"
HOOKS = "/apis/admissionregistration.k8s.io/v1"
SECRET, HOOK = f"{SECRETS}/op-tls", f"{HOOKS}/mutatingwebhookconfigurations/op"
NAMES = ("op.ops.svc", "op.ops")
DAY = dt.timedelta(days=1)


class Objects:
    """Secrets and configurations with versions; `before` is called as an object is read."""

    def __init__(self) -> None:
        self.there: dict[str, Document] = {}
        self.before: dict[str, Callable[[], None]] = {}
        self.on_patch: Callable[[], None] = lambda: None
        self._version = 0

    def put(self, path: str, content: Document) -> Document:
        """Put one there, as somebody else does it."""
        self._version += 1
        version = {"metadata": {"resourceVersion": str(self._version)}}
        self.there[path] = {**content, **version}
        return self.there[path]

    def hook(self, trusted: bytes = b"") -> None:
        """Put the configuration there."""
        bundle = {"caBundle": base64.b64encode(trusted).decode()}
        self.put(HOOK, {"webhooks": [{"clientConfig": bundle}, {"clientConfig": bundle}]})

    def secret(self, data: dict[str, bytes]) -> None:
        """Put the Secret there."""
        self.put(SECRET, {"data": {k: base64.b64encode(v).decode() for k, v in data.items()}})

    @property
    def stored(self) -> dict[str, bytes]:
        """What the Secret holds."""
        data = self.there[SECRET]["data"]
        return {name: base64.b64decode(text) for name, text in data.items()}

    @property
    def trusted(self) -> set[bytes]:
        """What the configuration trusts."""
        hooks = self.there[HOOK]["webhooks"]
        return {base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in hooks}

    async def find(self, path: str) -> Document | None:
        if path in self.before:
            self.before.pop(path)()
        return self.there.get(path)

    async def create(self, path: str, body: Document) -> Document:
        name = f"{path}/{body['metadata']['name']}"
        if name in self.there:
            raise ApiRefused(409, "it is there")
        return self.put(name, body)

    async def patch(self, path: str, body: Document) -> Document:
        self._test(path, body["metadata"]["resourceVersion"])
        return self.put(path, {"data": body["data"]})

    async def patch_json(self, path: str, operations: Sequence[Document]) -> Document:
        test, *rest = operations
        assert test["path"] == "/metadata/resourceVersion"
        self._test(path, test["value"])
        self.on_patch()
        hooks: list[Any] = self.there[path]["webhooks"]
        for each in rest:
            number = int(each["path"].split("/")[2])
            hooks[number] = {"clientConfig": {"caBundle": each["value"]}}
        return self.put(path, {"webhooks": hooks})

    def _test(self, path: str, version: str) -> None:
        if self.there[path]["metadata"]["resourceVersion"] != version:
            raise ApiRefused(409, "another version")


def keeper(objects: Objects, *, is_ours: bool = True) -> tuple[CertificateKeeper, OperatorMetrics]:
    metrics = OperatorMetrics(CollectorRegistry(), lambda: False)
    hooks = Webhooks("ops", "op-tls", NAMES, is_ours=is_ours, mutating=["op"])
    return CertificateKeeper(cast("Api", objects), hooks, SystemClock(), metrics), metrics


def bundle(age: dt.timedelta = 0 * DAY) -> Bundle:
    found = renewed(None, NAMES, dt.datetime.now(dt.UTC) - age)
    assert found is not None
    return found


async def test_what_is_made_is_stored_trusted_by_every_webhook_and_served() -> None:
    objects = Objects()
    objects.hook()
    kept, metrics = keeper(objects)
    await kept.look()
    assert objects.trusted == {objects.stored["ca.crt"]}
    assert kept.ready.is_set()
    assert metrics.certificate_until == not_after(objects.stored["tls.crt"]).timestamp()
    version = objects.there[HOOK]["metadata"]
    await kept.look()
    assert objects.there[HOOK]["metadata"] == version


async def test_a_new_authority_is_trusted_before_its_certificate_is_shown() -> None:
    objects = Objects()
    old = bundle(3300 * DAY)
    objects.secret(old.data())
    objects.hook(old.trusted)
    kept, metrics = keeper(objects)
    shown: list[float] = []
    objects.on_patch = lambda: shown.append(metrics.certificate_until)
    await kept.look()
    assert shown == [0.0]
    (trusted,) = objects.trusted
    assert old.trusted in trusted
    assert trusted == objects.stored["ca.crt"] != old.trusted


async def test_a_replica_that_is_late_does_not_undo_what_another_one_has_renewed() -> None:
    objects = Objects()
    old = bundle()
    objects.secret(old.data())
    objects.hook(old.trusted)
    newer = bundle()

    def renew() -> None:
        objects.secret(newer.data())
        objects.hook(newer.trusted)

    objects.before[HOOK] = renew  # after this replica has read the Secret
    await keeper(objects)[0].look()
    assert objects.trusted == {newer.trusted}


async def test_of_two_replicas_that_renew_one_is_too_late_and_takes_the_others() -> None:
    objects = Objects()
    objects.hook()
    objects.secret({})
    other = bundle()
    path = objects.there[SECRET]
    kept, metrics = keeper(objects)

    class Faster(Objects):
        async def patch(self, path: str, body: Document) -> Document:
            if self.there[SECRET]["data"] == {}:
                self.secret(other.data())
            return await super().patch(path, body)

    objects.__class__ = Faster
    await kept.look()
    assert path != objects.there[SECRET]
    assert objects.stored == other.data()
    assert metrics.certificate_until == not_after(other.leaf.certificate).timestamp()


@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("wrong", ["tls.crt", "tls.key", "mixed", "encrypted"])
async def test_a_secret_that_holds_rubbish_is_made_anew_or_waited_for(
    wrong: str, is_ours: bool
) -> None:
    objects = Objects()
    objects.hook()
    broken = {**bundle().data(), wrong: b"rubbish"}
    if wrong == "mixed":
        broken = {**bundle().data(), "tls.key": bundle().leaf.key}
    if wrong == "encrypted":
        good = bundle().data()
        broken = {**good, "tls.key": encrypted(good["tls.key"])}
    objects.secret(broken)
    kept, _ = keeper(objects, is_ours=is_ours)
    if is_ours:
        await kept.look()
        assert read_bundle(objects.stored) is not None
        assert kept.ready.is_set()
    else:
        with pytest.raises(ConfigError, match="Secret op-tls"):
            await kept.look()
        assert not kept.ready.is_set()


async def test_a_certificate_that_comes_after_us_is_served_soon() -> None:
    objects = Objects()
    kept, _ = keeper(objects, is_ours=False)
    has_looked = asyncio.Event()
    objects.before[SECRET] = has_looked.set
    async with Background() as tasks, asyncio.timeout(60):
        tasks.start(kept.run(), name="keeper")
        await has_looked.wait()
        await asyncio.sleep(0)  # in vain
        objects.secret(bundle().data())
        await kept.ready.wait()
