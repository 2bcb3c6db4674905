"""What the API server is answered, whatever goes wrong, and for how long it is kept waiting."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from sidecar.election.background import Background
from sidecar.election.ports import SystemClock
from sidecar.errors import ApiRefused, NoAnswer, SidecarError
from sidecar.operator import admission
from sidecar.operator.admission import Admission
from sidecar.operator.api import Api
from sidecar.operator.injection import Defaults, injected
from sidecar.operator.metrics import OperatorMetrics
from sidecar.operator.stores import Stores
from tests.operator.things import Document, document, election, pod_document

POD = "/api/v1/namespaces/shop/pods/m-0"
ELECTION = "/apis/leader-sidecar.io/v1alpha1/namespaces/shop/elections/master"
BUDGETS = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"
EVICTION: Document = {"uid": "1", "namespace": "shop", "name": "m-0", "object": {}}


class Objects:
    """The API server as far as admission reads it; `fails` is raised instead of an answer."""

    def __init__(self, *there: tuple[str, Document]) -> None:
        self.there = dict(there)
        self.asked: list[str] = []
        self.fails: Exception | None = None

    async def find(self, path: str) -> Document | None:
        self.asked.append(path)
        if self.fails is not None:
            raise self.fails
        return self.there.get(path)

    async def items(self, path: str) -> list[Document]:
        self.asked.append(path)
        return [found for name, found in self.there.items() if name.rpartition("/")[0] == path]


class NoStores:
    """Elections whose etcd may not be asked."""

    def connected(self, *_: object) -> Any:
        raise AssertionError("etcd was asked")


Made = Callable[[Objects], Admission]


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return what the replica's metrics are read from."""
    return CollectorRegistry()


@pytest.fixture
async def made(registry: CollectorRegistry) -> AsyncIterator[Made]:
    """Return what makes the webhooks of a replica that sees these objects."""
    metrics = OperatorMetrics(registry, lambda: False)
    async with Background() as tasks:

        def make(objects: Objects) -> Admission:
            return Admission(
                cast("Api", objects),
                cast("Stores", NoStores()),
                Defaults("sidecar:1"),
                SystemClock(),
                metrics,
                tasks=tasks,
                reads_nodes=False,
            )

        yield make


async def post(admission: Admission, path: str, body: object) -> tuple[int, Document]:
    """Ask as the API server does; return the status and the answer."""
    sent: list[Any] = []

    async def receive() -> Document:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await admission.app()(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


# Evictions


async def test_a_dry_run_is_allowed_and_nothing_is_looked_at(made: Made) -> None:
    objects = Objects((POD, pod_document("m-0")), (ELECTION, document()))
    for asked in ({"dryRun": True}, {"object": {"deleteOptions": {"dryRun": ["All"]}}}):
        status, answer = await post(made(objects), "/evict", {"request": {**EVICTION, **asked}})
        assert (status, answer["response"]) == (200, {"uid": "1", "allowed": True})
    assert objects.asked == []


async def test_etcd_is_not_asked_where_the_pod_stands_in_no_election_or_a_budget_keeps_it(
    made: Made,
) -> None:
    budget = {"spec": {"selector": {}}, "status": {"disruptionsAllowed": 0}}
    stranger = pod_document("m-0", labels={"app": "other"})
    for there in (
        [],
        [(POD, stranger), (ELECTION, document())],
        [(POD, pod_document("m-0")), (ELECTION, document()), (f"{BUDGETS}/b", budget)],
    ):
        assert await made(Objects(*there)).evict(EVICTION) == ({}, "nothing")
    one = Objects((POD, pod_document("m-0")), (ELECTION, document()))
    with pytest.raises(AssertionError, match="etcd was asked"):
        await made(one).evict(EVICTION)


async def test_an_eviction_is_allowed_in_time_also_where_cleaning_up_takes_longer(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert admission._HOLD <= 3.0
    monkeypatch.setattr(admission, "_HOLD", 0.05)
    cleaned = asyncio.Event()

    class Silent(Objects):
        async def find(self, path: str) -> Document | None:
            try:
                await asyncio.Event().wait()
            finally:
                await cleaned.wait()
            return None

    asked = made(Silent())
    async with asyncio.timeout(30):
        assert await asked.evict(EVICTION) == ({}, "not_moved")
    cleaned.set()


@pytest.mark.parametrize("fails", [NoAnswer("no answer"), ApiRefused(403, "no"), KeyError("odd")])
@pytest.mark.parametrize("webhook", ["evict", "inject"])
async def test_whatever_goes_wrong_the_answer_is_yes(
    made: Made,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
    webhook: str,
    fails: Exception,
) -> None:
    objects = Objects()
    objects.fails = fails
    metadata = {
        "labels": {"leader-sidecar.io/inject": "true"},
        "annotations": {"leader-sidecar.io/election": "master"},
    }
    asked = {**EVICTION, "object": {"metadata": metadata, "spec": {"containers": []}}}
    status, answer = await post(made(objects), f"/{webhook}", {"request": asked})
    assert (status, answer["response"]["allowed"]) == (200, True)
    assert "patch" not in answer["response"]
    counted = {"webhook": webhook, "result": "failed"}
    assert registry.get_sample_value("leader_sidecar_operator_admissions_total", counted) == 1
    (said,) = (r for r in caplog.records if r.message.startswith("allowed without a look"))
    is_expected = isinstance(fails, SidecarError)
    assert bool(said.exc_info) is not is_expected, "a traceback where nobody expected it"


@pytest.mark.parametrize("body", [[], {}, {"request": {"namespace": "shop"}}])
async def test_what_is_no_review_is_refused_as_such(made: Made, body: object) -> None:
    assert (await post(made(Objects()), "/evict", body))[0] == 400


# Injection


def with_sidecar(pod: Document) -> None:
    pod["spec"]["initContainers"] = [{"name": "leader-sidecar"}]


def with_volume(pod: Document) -> None:
    pod["spec"]["volumes"] = [{"name": "leader-sidecar"}]


def refusing(pod: Document) -> None:
    pod["metadata"]["labels"]["leader-sidecar.io/inject"] = "false"


def asking() -> Document:
    asks = {"leader-sidecar.io/inject": "true"}
    named = {"leader-sidecar.io/election": "master"}
    pod = pod_document("web-0", labels=asks, annotations=named)
    pod["spec"] = {"containers": [{"name": "web", "image": "web:1"}]}
    return pod


async def test_a_pod_that_asks_gets_a_patch(made: Made) -> None:
    there = made(Objects((ELECTION, document())))
    answer, result = await there.inject({"uid": "1", "namespace": "shop", "object": asking()})
    assert result == "injected"
    operations = json.loads(base64.b64decode(answer["patch"]))
    assert {each["path"] for each in operations} == {
        "/metadata/annotations",
        "/spec/containers",
        "/spec/initContainers",
        "/spec/volumes",
        "/spec/terminationGracePeriodSeconds",
    }


async def test_a_pod_gets_no_sidecar_that_would_not_start(made: Made) -> None:
    there = made(Objects((ELECTION, document(sidecar={"health": {"tcp": "web"}}))))
    answer, result = await there.inject({"uid": "1", "namespace": "shop", "object": asking()})
    assert (result, "patch" in answer) == ("refused", False)
    (said,) = answer["warnings"]
    assert said.startswith("no sidecar injected: Election master: spec.sidecar.health.tcp: must be")


async def test_what_came_after_the_sidecar_gets_a_patch_and_needs_no_election(made: Made) -> None:
    there = made(Objects((ELECTION, document())))
    asked = {"uid": "1", "namespace": "shop"}
    pod = injected(asking(), election(), Defaults("sidecar:1"))
    assert await there.inject({**asked, "object": pod}) == ({}, "nothing")
    pod["spec"]["containers"].append({"name": "late", "image": "late:1"})
    objects = Objects()
    answer, result = await made(objects).inject({**asked, "object": pod})
    assert (result, objects.asked) == ("injected", [])
    (operation,) = json.loads(base64.b64decode(answer["patch"]))
    assert (operation["op"], operation["path"]) == ("replace", "/spec/containers")
    first, late = operation["value"]
    assert first == pod["spec"]["containers"][0]
    assert [mount["mountPath"] for mount in late["volumeMounts"]] == ["/run/leader-sidecar"]


@pytest.mark.parametrize("change", [with_sidecar, with_volume, refusing])
async def test_a_pod_that_has_the_sidecar_or_refuses_it_is_left_as_it_is(
    made: Made, change: Callable[[Document], None]
) -> None:
    pod = asking()
    change(pod)
    objects = Objects((ELECTION, document()))
    asked = {"uid": "1", "namespace": "shop", "object": pod}
    assert await made(objects).inject(asked) == ({}, "nothing")
    assert objects.asked == []
