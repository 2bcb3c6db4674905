"""Every write asks first whether the term may still be acted on, and what its answers mean."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry

from sidecar.core.state import ElectionState, Role
from sidecar.core.store import Header, Put, Txn, TxnReply
from sidecar.election.contact import Contact
from sidecar.election.feed import Feed
from sidecar.election.ports import NoMeter
from sidecar.errors import ApiRefused, NoAnswer, NotLeader, Unavailable
from sidecar.operator.api import Api, core_path, election_path, group_path
from sidecar.operator.leading import TermGate
from sidecar.operator.metrics import OperatorMetrics
from sidecar.operator.stores import Gated, SharedContact
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.kube_api import KubeApi


class Clock:
    """Set by hand."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.seconds


def leading(token: int, deadline: float) -> ElectionState:
    return ElectionState("/e", "op-0", Role.LEADER, token, "/e/1", deadline)


def closed() -> None:
    raise NotLeader("closed")


# The gate


def test_the_gate_closes_by_the_clock_alone() -> None:
    clock = Clock()
    gate = TermGate(Feed(leading(7, 110.0)), clock)
    gate()
    clock.seconds = 110.0
    with pytest.raises(NotLeader):
        gate()


def test_the_gate_of_one_term_stays_closed_in_the_next() -> None:
    feed = Feed(leading(7, 110.0))
    gate = TermGate(feed, Clock())
    feed.publish(ElectionState("/e", "op-0"))
    assert not gate.is_open()
    feed.publish(leading(8, 200.0))
    assert not gate.is_open()


class Reached(FakeCoordinator):
    """Notes what comes through."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    async def txn(self, txn: Txn, *, timeout: float) -> TxnReply:
        self.sent.append("txn")
        return TxnReply(Header(1, 1, 1), succeeded=True)

    async def grant(self, lease: int, ttl: float, *, timeout: float) -> float:
        self.sent.append("grant")
        return ttl

    async def revoke(self, lease: int, *, timeout: float) -> None:
        self.sent.append("revoke")


async def test_nothing_is_put_into_etcd_once_the_gate_is_closed() -> None:
    inner = Reached()
    txn = Txn(guards=(), then=(Put(b"k", b"v", 0),))
    leads = Gated(inner, is_open)
    await leads.txn(txn, timeout=1)
    await leads.grant(1, 30, timeout=1)
    assert inner.sent == ["txn", "grant"]
    shut = Gated(inner, closed)
    for attempt in (shut.txn(txn, timeout=1), shut.grant(1, 30, timeout=1)):
        with pytest.raises(NotLeader):
            await attempt
    await shut.revoke(1, timeout=1)  # what is left behind may go at any time
    assert inner.sent == ["txn", "grant", "revoke"]


# One cluster, many elections


def test_elections_of_one_cluster_ask_it_only_when_it_was_silent_to_all() -> None:
    clock, told = Clock(), [0]
    cluster = Contact(clock, NoMeter())

    def changed() -> None:
        told[0] += 1

    one, other = (SharedContact(clock, cluster, changed) for _ in range(2))
    one.answered()
    clock.seconds += 3
    assert (one.silent_for(), other.silent_for()) == (3, 3)
    other.answered()
    assert one.silent_for() == 0
    one.failed("watch", Unavailable("no answer"))
    assert (one.trouble, other.trouble) == ("watch: no answer", "")
    one.failed("watch", Unavailable("still none"))
    assert told == [1]
    one.answered()
    assert (one.trouble, told) == ("", [2])


# The API server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as made:
        yield made


def is_open() -> None:
    """The gate of a replica that leads."""


def client(server: KubeApi, metrics: OperatorMetrics, gate: Callable[[], None] = is_open) -> Api:
    found = Configuration(host=f"https://{server.access.host}:{server.access.port}")
    found.ssl_ca_cert = str(server.account / "ca.crt")
    found.api_key["BearerToken"] = "Bearer token-1"
    return Api(found, gate, metrics)


@pytest.fixture
def metrics() -> OperatorMetrics:
    return OperatorMetrics(CollectorRegistry(), lambda: True)


POD = core_path("shop", "pods", "master-0")


async def test_a_patch_comes_back_with_what_has_become_of_the_object(
    server: KubeApi, metrics: OperatorMetrics
) -> None:
    async with client(server, metrics) as api:
        before = await api.get(POD)
        patch = {"metadata": {"uid": server.uid, "labels": {"leader-sidecar.io/role": "leader"}}}
        after = await api.patch(POD, patch)
    assert after["metadata"]["labels"]["leader-sidecar.io/role"] == "leader"
    assert after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    assert server.requests[-1].kind == "application/merge-patch+json"


async def test_with_the_gate_closed_it_reads_and_does_not_write(
    server: KubeApi, metrics: OperatorMetrics
) -> None:
    async with client(server, metrics, closed) as api:
        await api.get(POD)
        for write in (api.patch(POD, {}), api.create(core_path("shop", "events"), {})):
            with pytest.raises(NotLeader):
                await write
    assert [request.method for request in server.requests] == ["GET"]


async def test_a_write_that_waited_for_a_connection_asks_the_gate_then(
    server: KubeApi, metrics: OperatorMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.operator.api._CONNECTIONS", 1)
    is_closed = False

    def gate() -> None:
        if is_closed:
            raise NotLeader("closed")

    with server.holding("GET") as held:
        async with client(server, metrics, gate) as api, asyncio.TaskGroup() as tasks:
            read = tasks.create_task(api.get(POD))
            await asyncio.to_thread(held.wait)
            write = tasks.create_task(_refused(api.patch(POD, {"metadata": {"labels": {}}})))
            await asyncio.sleep(0)  # it waits for the one connection
            is_closed = True
            await asyncio.to_thread(held.let_go)
            await read
            assert await write
    assert [request.method for request in server.requests] == ["GET"]


async def _refused(attempt: Awaitable[object]) -> bool:
    try:
        await attempt
    except NotLeader:
        return True
    return False


async def test_a_no_is_told_with_its_status_and_the_servers_words(
    server: KubeApi, metrics: OperatorMetrics
) -> None:
    server.deny(("patch", "pods"))
    async with client(server, metrics) as api:
        with pytest.raises(ApiRefused, match='cannot patch resource "pods"') as told:
            await api.patch(POD, {"metadata": {"labels": {"a": "b"}}})
        assert told.value.status == 403
        assert await api.find(core_path("shop", "pods", "nobody")) is None


async def test_no_answer_is_told_as_such(server: KubeApi, metrics: OperatorMetrics) -> None:
    server.cut("PATCH", "after")
    async with client(server, metrics) as api:
        with pytest.raises(NoAnswer):
            await api.patch(POD, {"metadata": {"labels": {"a": "b"}}})
        server.stop()
        with pytest.raises(NoAnswer):
            await api.get(POD)
    await asyncio.sleep(0)


async def test_requests_are_counted_by_verb_kind_and_answer(
    server: KubeApi, metrics: OperatorMetrics
) -> None:
    async with client(server, metrics) as api:
        await api.get(POD)
        await api.find(core_path("shop", "pods", "nobody"))
    (counted,) = (m for m in metrics.collect() if m.name.endswith("api_requests"))
    assert {tuple(s.labels.values()): s.value for s in counted.samples} == {
        ("get", "pods", "200"): 1.0,
        ("get", "pods", "404"): 1.0,
    }


def test_paths_are_those_of_the_api() -> None:
    assert core_path("shop", "pods", "a/b") == "/api/v1/namespaces/shop/pods/a%2Fb"
    assert core_path("", "pods") == "/api/v1/pods"
    group = "/apis/leader-sidecar.io/v1alpha1"
    assert election_path("shop", "m", "status") == f"{group}/namespaces/shop/elections/m/status"
    assert election_path("") == f"{group}/elections"
    assert group_path("policy/v1", "shop", "x") == "/apis/policy/v1/namespaces/shop/x"


def test_the_first_failure_of_admission_is_an_increase(metrics: OperatorMetrics) -> None:
    def failed() -> float:
        (counted,) = (m for m in metrics.collect() if m.name.endswith("admissions"))
        wanted = {"webhook": "evict", "result": "failed"}
        (sample,) = (s for s in counted.samples if s.labels == wanted)
        return float(sample.value)

    assert failed() == 0
    metrics.admitted("evict", "failed")
    assert failed() == 1
