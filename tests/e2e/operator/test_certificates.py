"""The webhooks' certificate over its life, on a real API server."""

import base64
import datetime as dt
from collections.abc import Iterator

import pytest

from sidecar.operator.certificates import renewed
from tests.e2e.operator.deployed import deploy
from tests.e2e.operator.shop import Replica, Shop
from tests.e2e.operator.test_admission import evict, leave
from tests.support.tls import not_after

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

DAY = dt.timedelta(days=1)


@pytest.fixture
def replica(shop: Shop) -> Iterator[Replica]:
    """One replica with the chart's webhooks."""
    yield deploy(shop)
    leave(shop.server)


def path(shop: Shop) -> str:
    return f"/api/v1/namespaces/{shop.namespace}/secrets/demo-operator-tls"


def stored(shop: Shop) -> dict[str, bytes]:
    data = shop.server.admin.get(path(shop))["data"]
    return {name: base64.b64decode(text) for name, text in data.items()}


def trusted(shop: Shop) -> bytes:
    kind = "validatingwebhookconfigurations"
    found = shop.server.admin.get(f"/apis/admissionregistration.k8s.io/v1/{kind}")
    (hook,) = found["items"][0]["webhooks"]
    return base64.b64decode(hook["clientConfig"]["caBundle"])


def test_a_certificate_that_is_due_is_renewed_by_the_next_replica(
    shop: Shop, replica: Replica
) -> None:
    first = stored(shop)
    assert trusted(shop) == first["ca.crt"]
    now = dt.datetime.now(dt.UTC)
    old = renewed(None, ("x",), now - 3300 * DAY)
    assert old is not None
    names = (f"demo-operator.{shop.namespace}.svc", f"demo-operator.{shop.namespace}")
    ending = renewed(old, names, now - 80 * DAY)
    assert ending is not None
    data = {k: base64.b64encode(v).decode() for k, v in ending.data().items()}
    replica.child.kill()
    shop.server.admin.merge(path(shop), {"data": data})
    replica.start()
    shop.until(lambda: stored(shop)["tls.crt"] != ending.leaf.certificate, "renewed")
    # The old authority ends within a year, so there is a new one, and both are trusted.
    assert ending.trusted in stored(shop)["ca.crt"]
    shop.until(lambda: trusted(shop) == stored(shop)["ca.crt"], "trusted")
    assert not_after(stored(shop)["tls.crt"]) > now + 80 * DAY
    shop.until(lambda: replica.get("/readyz")[0] == 200, "it serves")
    shop.pod("m-0")
    assert evict(shop, "m-0") == 201
    assert replica.metric("leader_sidecar_operator_admissions_total", webhook="evict") == 1


def test_two_replicas_agree_on_one_certificate(shop: Shop, replica: Replica) -> None:
    replica.child.kill()
    shop.server.admin.merge(path(shop), {"data": None})
    options = [a for a in replica.child.argv if "webhook" in a and "--webhook=" not in a]
    options += [a for a in replica.child.argv if a.startswith(("--certificate", "--namespaces"))]
    second = shop.operator("op-1", *options)
    replica.start()
    for each in (replica, second):
        shop.wait_for_readiness(each)
    ends = {
        each.metric("leader_sidecar_operator_certificate_not_after_timestamp_seconds")
        for each in (replica, second)
    }
    assert ends == {not_after(stored(shop)["tls.crt"]).timestamp()}
    shop.until(lambda: trusted(shop) == stored(shop)["ca.crt"], "trusted")


def test_a_certificate_of_somebody_elses_is_served_soon_after_it_is_issued(shop: Shop) -> None:
    names = (f"demo-operator.{shop.namespace}.svc",)
    options = ("--webhook-service=demo-operator", "--certificates=other")
    replica = shop.operator("op-0", *options)
    replica.child.wait_for_line("holds no certificate yet", stream="err")
    assert replica.get("/readyz")[0] == 503
    issued = renewed(None, names, dt.datetime.now(dt.UTC))
    assert issued is not None
    data = {k: base64.b64encode(v).decode() for k, v in issued.data().items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-operator-tls"}}
    shop.server.admin.create(path(shop).rpartition("/")[0], {**body, "data": data})
    shop.wait_for_readiness(replica)
