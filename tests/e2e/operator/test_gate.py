"""The work of a term asks before every write whether the term may still be acted on."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest
from kubernetes.aio import config
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry

from sidecar.core.state import ElectionState, Role
from sidecar.election.background import Background
from sidecar.election.feed import Feed
from sidecar.election.ports import SystemClock
from sidecar.errors import NotLeader
from sidecar.operator.leading import Leading, Scope, TermGate
from sidecar.operator.metrics import OperatorMetrics
from tests.e2e.operator.shop import ROLE, Shop

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


class Gate(TermGate):
    """Closed by hand, while the work goes on that a replica ends at that moment."""

    def __init__(self) -> None:
        super().__init__(Feed(ElectionState("/e", "op-0", Role.LEADER, 7)), SystemClock())
        self.may_write = True
        self.was_asked = asyncio.Event()

    def __call__(self) -> None:
        if not self.may_write:
            self.was_asked.set()
            raise NotLeader("closed by the test")


@pytest.fixture
async def gate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gate]:
    """The gate of a term whose work runs in this process, in a namespace of two candidates."""
    for name in ("m-0", "m-1"):
        shop.pod(name)
    shop.make()
    shop.candidates("m-0", "m-1")
    kubeconfig = str(shop.server.kubeconfig("admin"))
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    found = Configuration()
    await config.load_kube_config(  # type: ignore[no-untyped-call]
        config_file=kubeconfig, client_configuration=found
    )
    found.disable_strict_ssl_verification = True
    gate = Gate()
    work = Leading(
        found,
        gate,
        Scope((shop.namespace,)),
        clock=SystemClock(),
        metrics=OperatorMetrics(CollectorRegistry(), lambda: True),
        reporter="op-0",
    )
    async with Background() as tasks:
        tasks.start(work.run(), name="work")
        await asyncio.to_thread(shop.wait_for_label, "m-0")
        await asyncio.to_thread(shop.until, lambda: shop.role("m-1") == "follower", "labelled")
        await asyncio.to_thread(shop.until, lambda: shop.status["health"] == "Healthy", "rest")
        gate.may_write = False
        yield gate
    assert work.watch is not None
    await work.watch.ended()
    # kopf's loop has ended before its connections have: they go here, and not in another test.
    gc.collect()


async def test_nothing_is_written_to_the_api_server_behind_a_closed_gate(
    shop: Shop, gate: Gate
) -> None:
    wrong = {"metadata": {"labels": {ROLE: "leader"}}}
    await asyncio.to_thread(shop.server.admin.merge, shop.path("m-1"), wrong)
    async with asyncio.timeout(60):
        await gate.was_asked.wait()
    assert shop.role("m-1") == "leader"


async def test_nothing_is_asked_of_a_leader_behind_a_closed_gate(shop: Shop, gate: Gate) -> None:
    asks = {"metadata": {"annotations": {"leader-sidecar.io/handover-to": "m-1"}}}
    await asyncio.to_thread(shop.server.admin.merge, shop.election_path, asks)
    async with asyncio.timeout(60):
        await gate.was_asked.wait()
    assert shop.team.members["m-0"].leadership.is_leader()
