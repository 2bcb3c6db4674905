"""What kopf is asked to do: to tell of events, and to leave nothing on any object."""

import asyncio
import inspect
from typing import Any

import pytest

from sidecar.operator.hub import Hub
from sidecar.operator.unreadable import Unreadable
from sidecar.operator.watching import Watch, _settings
from tests.operator.test_hub import Clock, Worker
from tests.operator.things import document


async def registry(*namespaces: str) -> Any:
    watch = Watch(Hub(Worker, Clock()), namespaces, "op-0", lambda: None)
    return watch._registry()


@pytest.mark.parametrize("namespaces", [(), ("shop",)])
async def test_kopf_tells_of_events_by_async_handlers_and_does_nothing_else(
    namespaces: tuple[str, ...],
) -> None:
    made = await registry(*namespaces)
    told = made._watching.get_all_handlers()
    assert {h.selector.any_name or h.selector.plural for h in told} == (
        {"elections", "pods"} if namespaces else {"elections", "pods", "nodes"}
    )
    # A handler that is none would run in a thread, which kopf waits for when it is to end.
    logins = made._activities.get_all_handlers()
    assert all(inspect.iscoroutinefunction(h.fn) for h in [*told, *logins])
    # These would leave finalizers or annotations behind, or be served by kopf.
    for other in (made._changing, made._spawning, made._indexing, made._webhooks):
        assert list(other.get_all_handlers()) == []


async def test_an_election_that_cannot_be_read_is_handed_over_as_such() -> None:
    hub = Hub(Worker, Clock())
    watch = Watch(hub, (), "op-0", lambda: None)
    specs: list[Any] = [{}, {"maxTermDuration": "x"}, {}]
    for version, spec in enumerate(specs):
        body = document(**spec)
        body["metadata"]["resourceVersion"] = str(version)
        await watch._on_election(event={"type": "MODIFIED", "object": body})
        await asyncio.sleep(0)  # handed over
        (worker,) = hub.workers
        assert isinstance(worker.election, Unreadable) is bool(spec)


def test_kopf_posts_nothing_and_shares_no_peers() -> None:
    settings = _settings()
    assert not settings.posting.enabled
    assert settings.peering.standalone
    assert settings.process.ultimate_exiting_timeout is None
    assert settings.admission.server is None
    assert settings.admission.managed is None
