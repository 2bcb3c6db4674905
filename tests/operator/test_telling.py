"""Events are sent in their order, beside the rounds, and never too many of them."""

import asyncio
from collections.abc import Iterator

import pytest

from sidecar.election.background import Background
from sidecar.errors import ApiRefused, NoAnswer, NotLeader
from sidecar.operator.story import Happening
from sidecar.operator.tools import Teller
from tests.operator.test_hub import Clock
from tests.operator.things import Document, election, tools_for

pytestmark = pytest.mark.timeout(60)


class Events:
    """An API server that takes Events when it is let, and refuses those that it is told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.taken: list[str] = []
        self.errors: Iterator[Exception | None] = iter(())
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.last = asyncio.Event()

    async def create(self, path: str, body: Document) -> Document:
        reason = body["reason"]
        self.begun.append(reason)
        await self.goes_on.wait()
        if error := next(self.errors, None):
            raise error
        self.taken.append(reason)
        if reason == "Last":
            self.last.set()
        return body


def happening(what: str) -> Happening:
    return Happening(what, "it has", "1")


@pytest.fixture
def api() -> Events:
    return Events()


async def test_who_tells_does_not_wait_and_the_order_is_kept(api: Events) -> None:
    teller = Teller(tools_for(api, Clock()))
    api.goes_on.clear()
    async with Background() as tasks:
        tasks.start(teller.run(), name="events")
        for what in ("First", "Second"):
            teller.tell(election(), happening(what))
        teller.tell_of_command(election(), "Last", "done", token=1, is_warning=False)
        api.goes_on.set()
        await api.last.wait()
    assert api.taken == ["First", "Second", "Last"]


async def test_what_is_one_too_many_is_lost_and_said_in_the_log(
    api: Events, caplog: pytest.LogCaptureFixture
) -> None:
    teller = Teller(tools_for(api, Clock()))
    teller.tell(election(), happening("First"))
    for _ in range(18):
        teller.tell(election(), happening("More"))
    teller.tell(election(), happening("Last"))
    assert "Event lost" not in caplog.text
    teller.tell(election(), happening("TooMany"))
    assert "Event lost reason=TooMany" in caplog.text
    async with Background() as tasks:
        tasks.start(teller.run(), name="events")
        await api.last.wait()
    assert (len(api.taken), api.taken[0]) == (20, "First")


async def test_an_event_that_is_not_taken_stands_in_no_others_way(api: Events) -> None:
    teller = Teller(tools_for(api, Clock()))
    api.errors = iter([ApiRefused(403, "no"), ApiRefused(409, "there"), NoAnswer("-"), KeyError()])
    async with Background() as tasks:
        tasks.start(teller.run(), name="events")
        for what in ("Refused", "There", "Lost", "Broken", "Last"):
            teller.tell(election(), happening(what))
        await api.last.wait()
    assert (len(api.begun), api.taken) == (5, ["Last"])


async def test_once_another_replica_leads_nothing_more_is_told(api: Events) -> None:
    teller = Teller(tools_for(api, Clock()))
    api.errors = iter([NotLeader("closed")])
    for what in ("First", "Last"):
        teller.tell(election(), happening(what))
    await teller.run()
    assert api.begun == ["First"]


async def test_events_of_many_elections_leave_connections_to_what_matters(api: Events) -> None:
    tools = tools_for(api, Clock())
    api.goes_on.clear()
    async with Background() as tasks:
        for _ in range(5):
            teller = Teller(tools)
            teller.tell(election(), happening("Waits"))
            tasks.start(teller.run(), name="events")
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(api.begun) == 2
