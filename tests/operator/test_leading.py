"""What the sweep finds out, and what becomes of a replica whose watches have failed."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from kubernetes.aio.client import Configuration
from starlette.requests import Request

from sidecar.election.background import Background
from sidecar.operator.api import Api
from sidecar.operator.app import Operator
from sidecar.operator.hub import Hub
from sidecar.operator.leading import Leading, Scope, TermGate
from sidecar.operator.metrics import OperatorMetrics
from sidecar.outputs.http import bind
from tests.operator.test_hub import Clock, Worker
from tests.operator.test_settings import settings
from tests.operator.things import election, following


class Uids:
    """An API server that has two pods and one Election."""

    def __init__(self) -> None:
        self.asked = 0

    async def uids(self, path: str) -> set[str]:
        self.asked += path.endswith("/pods")
        return {"uid-of-m-0", "uid-of-m-1"} if path.endswith("/pods") else {"uid-of-election"}


@pytest.mark.timeout(60)
async def test_a_term_whose_watches_have_fallen_silent_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sidecar.operator.leading._SWEEP", 0.01)
    gate, metrics = cast("TermGate", None), cast("OperatorMetrics", None)
    leading = Leading(
        Configuration(), gate, Scope(), clock=Clock(), metrics=metrics, reporter="op-0"
    )
    api, hub = Uids(), Hub(Worker, Clock())
    hub.election_seen(election())
    hub.pod_seen(following("m-0"))
    hub.pod_seen(following("m-9"))
    async with Background() as tasks:
        tasks.start(leading._sweep(cast("Api", api), hub), name="sweep")
        await leading.has_failed.wait()
    assert api.asked >= 2
    assert "the watches do not tell of what there is" in caplog.text
    assert [pod.name for pod in hub.pods_of(election())] == ["m-0"]


async def test_a_replica_whose_watches_have_ended_is_not_well() -> None:
    request = cast("Request", None)
    with bind("127.0.0.1", 0) as http, bind("127.0.0.1", 0) as webhook:
        operator: Any = Operator(settings(), Configuration(), http, webhook)
        operator._candidate = SimpleNamespace(is_turning=lambda: True)
        assert (await operator._healthz(request)).status_code == 200
        operator._leading = SimpleNamespace(watch=SimpleNamespace(is_alive=True))
        assert (await operator._healthz(request)).status_code == 200
        operator._leading.watch.is_alive = False
        assert (await operator._healthz(request)).status_code == 503
        operator._stopping.set()  # then it has to end
        assert (await operator._healthz(request)).status_code == 200
        operator._candidate = SimpleNamespace(is_turning=lambda: False)
        assert (await operator._healthz(request)).status_code == 503
