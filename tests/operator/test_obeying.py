"""What is due is carried out once, at its time by the operator's own clocks, and accounted for."""

import asyncio
import datetime as dt
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

import pytest

from sidecar.election.background import Background
from sidecar.election.ports import Coordinator
from sidecar.operator import commanding
from sidecar.operator.commanding import DONE, Outcome
from sidecar.operator.moves import LOOK_AGAIN, SETTLED, Move
from sidecar.operator.names import HANDOVER_TO
from sidecar.operator.obeying import Orders, Situation
from sidecar.operator.spec import Election
from sidecar.operator.status import stamp
from sidecar.operator.story import Happening
from sidecar.operator.tools import OperatorMeter, Teller, Tools
from sidecar.operator.view import View
from tests.operator.things import (
    NOW,
    Document,
    document,
    election,
    entry,
    following,
    queue,
    term,
    tools_for,
    view,
)
from tests.support.outputs import SetClock

DAY = 86400.0
PODS = [following(f"m-{n}") for n in range(3)]


class Begun(Background):
    """Tells what was begun."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self.names.append(name)
        super().start(work, name)


class Heard(Teller):
    """Tells nobody but us."""

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        self.told: list[tuple[str, str]] = []

    def tell(self, _: Election, happening: Happening) -> None:
        self.told.append((happening.what, happening.message))


class World:
    """An API server and an election that do what they are told, and an operator's orders."""

    def __init__(self, last: Document | None = None) -> None:
        self.clock = SetClock(wall=NOW)
        self.asked: list[tuple[str, str]] = []
        self.taken_off: list[str] = []
        self.has_ended = asyncio.Event()
        tools = replace(tools_for(self, self.clock), meter=cast("OperatorMeter", self))
        self._teller = Heard(tools)
        self.told = self._teller.told
        self.orders = Orders(tools, self._teller, last, self.has_ended.set)

    def moved(self, *_: object) -> None:
        """Nothing is counted here."""

    async def patch_json(self, path: str, patch: list[Document]) -> Document:
        self.taken_off.append(patch[0]["value"])
        return document()

    async def carry_out(self, _: object, __: object, move: Move, *, drain: float) -> Outcome:
        assert drain == commanding.LONGEST_DRAIN
        self.asked.append((move.reason, move.target.proposal.id))
        return Outcome(DONE)

    async def round(self, of: Election, seen: View) -> float | None:
        """Look once; what is begun is waited for."""
        self.orders.settling.note(seen)
        self.has_ended.clear()
        async with Begun() as tasks:
            situation = Situation(of, seen, PODS, is_own_pause=False)
            again = self.orders.begin(situation, cast("Coordinator", None), tasks)
            if tasks.names:
                await self.has_ended.wait()
        return again


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    """Begin an operator; `last` is the last move as the status tells it."""

    def begun(**said: Any) -> World:
        made = World(**said)
        monkeypatch.setattr(commanding, "carry_out", made.carry_out)
        return made

    return begun


def after(*ids: str, first: int) -> View:
    """A queue whose leader has begun a moment before."""
    return queue(*ids, first=first, history=(term(first, ids[0]),))


async def test_a_term_ends_in_a_window_and_that_is_accounted_for(
    begin: Callable[..., World],
) -> None:
    world = begin()
    # NOW is a Wednesday, 11:06:40 UTC.
    opens = dt.datetime.fromtimestamp(NOW, dt.UTC).replace(hour=16, minute=0, second=0)
    windows = [{"days": ["Wed"], "start": "16:00", "duration": "1h"}]
    old = election(maxTermDuration="1h", maintenanceWindows=windows)
    first = queue("m-0", "m-1", "m-2", history=(term(10, "m-0", NOW - DAY),))
    assert await world.round(old, first) == LOOK_AGAIN
    world.clock.advance(SETTLED)
    assert await world.round(old, first) == LOOK_AGAIN  # no window is open
    world.clock.advance(opens.timestamp() - world.clock.wall())
    await world.round(old, first)
    assert world.asked == [("MaxTermDuration", "m-1")]
    assert world.orders.last is not None
    assert world.orders.last["at"] == stamp(opens.timestamp())
    assert world.told == [("HandoverDone", "MaxTermDuration: to m-1")]


async def test_a_term_that_we_saw_begin_lasts_as_long_by_our_clock_whatever_the_wall_says(
    begin: Callable[..., World],
) -> None:
    world = begin()
    old = election(maxTermDuration="1h")
    await world.round(old, after("m-0", "m-1", first=10))
    # The next one begins where the clock is a day behind ours, and is nobody's move.
    seen = queue("m-1", "m-2", first=20, history=(term(20, "m-1", NOW - DAY),))
    for seconds in (0.0, SETTLED, 3580.0, 9.0):
        world.clock.advance(seconds)
        assert await world.round(old, seen) == LOOK_AGAIN
    assert world.asked == []
    world.clock.advance(1.0)
    await world.round(old, seen)
    assert world.asked == [("MaxTermDuration", "m-2")]


async def test_a_replica_that_begins_knows_the_last_move_and_waits_as_its_predecessor_would(
    begin: Callable[..., World],
) -> None:
    wanted = election(preferred={"candidate": "m-2"})
    seen = after("m-0", "m-1", "m-2", first=10)
    last = {"reason": "Preferred", "result": "Done", "to": "m-2", "at": stamp(NOW - 20)}
    world = begin(last=last)
    await world.round(wanted, seen)
    world.clock.advance(39.0)
    assert await world.round(wanted, seen) == LOOK_AGAIN
    assert world.asked == []
    world.clock.advance(1.0)
    await world.round(wanted, seen)
    assert world.asked == [("Preferred", "m-2")]
    # And so it does itself, should the leader change back.
    back = after("m-0", "m-1", "m-2", first=20)
    await world.round(wanted, back)
    world.clock.advance(59.0)
    await world.round(wanted, back)
    assert len(world.asked) == 1
    world.clock.advance(1.0)
    await world.round(wanted, back)
    assert len(world.asked) == 2


async def test_a_replica_that_begins_with_a_clock_ahead_ends_no_second_term_for_its_age(
    begin: Callable[..., World],
) -> None:
    last = {"reason": "MaxTermDuration", "result": "Done", "to": "m-0", "at": stamp(NOW - 60)}
    world = begin(last=last)
    seen = queue("m-0", "m-1", history=(term(10, "m-0", NOW - DAY),))
    old = election(maxTermDuration="1h")
    for seconds in (SETTLED, 3520.0):
        await world.round(old, seen)
        world.clock.advance(seconds)
    assert await world.round(old, seen) == LOOK_AGAIN
    assert world.asked == []
    world.clock.advance(10.0)
    await world.round(old, seen)
    assert world.asked == [("MaxTermDuration", "m-1")]


@pytest.mark.parametrize(
    ("seen", "to", "said"),
    [
        (view(entry("etcdctl", 10, priority=None), entry("m-1", 11)), "m-1", "another program"),
        (queue("m-0", "m-1", "m-1"), "m-1", "more than once"),
        (queue("m-1", "m-0", "m-1"), "m-1", "more than once"),
    ],
)
async def test_what_cannot_be_obeyed_is_refused_told_and_taken_off(
    begin: Callable[..., World], seen: View, to: str, said: str
) -> None:
    world = begin()
    await world.round(election(annotations={HANDOVER_TO: to}), seen)
    assert world.asked == []
    assert world.taken_off == [to]
    ((what, message),) = world.told
    assert what == "HandoverRefused"
    assert said in message
    assert world.orders.last is not None
    assert world.orders.last["result"] == "Refused"
    assert said in world.orders.last["message"]
