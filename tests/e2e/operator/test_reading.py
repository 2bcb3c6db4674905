"""Long lists, on a real API server."""

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry

from sidecar.operator.api import Api, core_path
from sidecar.operator.metrics import OperatorMetrics
from tests.e2e.operator.shop import Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


async def test_a_list_longer_than_a_page_is_read_to_its_end(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"m-{n}" for n in range(5)]
    for name in names:
        shop.pod(name)
    found = Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=str(shop.server.kubeconfig("admin")), client_configuration=found
    )
    found.disable_strict_ssl_verification = True
    monkeypatch.setattr("sidecar.operator.api.PAGE", 2)
    metrics = OperatorMetrics(CollectorRegistry(), lambda: True)
    async with Api(found, lambda: None, metrics) as api:
        path = core_path(shop.namespace, "pods")
        assert [pod["metadata"]["name"] for pod in await api.items(path)] == names
        assert len(await api.uids(path)) == len(names)
