"""Carries out the commands that are due in one election, one at a time, beside the rounds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sidecar.election.background import Background
from sidecar.election.ports import Coordinator
from sidecar.errors import ApiError, ApiRefused, NotLeader
from sidecar.kube.api import INVALID, NOT_FOUND
from sidecar.operator import commanding, moves
from sidecar.operator.api import election_path
from sidecar.operator.commanding import DONE, Outcome, Restraint, account
from sidecar.operator.facts import Pod
from sidecar.operator.moves import Move, NoMove, Scene, Settling
from sidecar.operator.names import HANDOVER_TO
from sidecar.operator.spec import Election, is_older
from sidecar.operator.tools import Teller, Tools
from sidecar.operator.view import View

log = logging.getLogger(__name__)

Order = str | Move | NoMove
PAUSE, RESUME = "Pause", "Resume"


@dataclass(frozen=True, slots=True)
class Situation:
    """What a command is decided upon; `is_own_pause`: the operator has made it."""

    election: Election
    view: View
    pods: Sequence[Pod]
    is_own_pause: bool


class Orders:
    """One command at a time.

    Args:
        tools: shared by all workers.
        teller: of this election.
        last: the last move as in the status.
        changed: called when a command has ended.
    """

    def __init__(
        self,
        tools: Tools,
        teller: Teller,
        last: Mapping[str, Any] | None,
        changed: Callable[[], None],
    ) -> None:
        self.last = last
        self.settling = Settling(tools.clock.now)
        self._tools = tools
        self._teller = teller
        self._changed = changed
        self._restraint = Restraint()
        self._is_busy = False
        self._taken_off = ""

    def note(self, move: Mapping[str, Any] | None) -> None:
        """Take in the last move as the status tells it."""
        self.last = moves.last_of(self.last, move)

    def begin(
        self, situation: Situation, coordinator: Coordinator, tasks: Background
    ) -> float | None:
        """Begin what is due, if anything; return after how many seconds to look again, or None."""
        view = situation.view
        if self._is_busy or not view.is_known or view.trouble:
            return None
        order, again = self._due(situation)
        if order is None:
            return again
        left = self._restraint.left(order, self._tools.clock.now())
        if left:
            return left if again is None else min(left, again)
        self._is_busy = True
        tasks.start(self._carry_out(order, situation, coordinator), name="operator-command")
        return None

    def _due(self, situation: Situation) -> tuple[Order | None, float | None]:
        election, view = situation.election, situation.view
        if is_older(election.version, self._taken_off):
            election = replace(election, handover_to="")  # which was obeyed already
        if election.paused is True and not view.is_paused:
            return PAUSE, None
        if election.paused is not True and situation.is_own_pause:
            return RESUME, None
        scene = Scene(
            election,
            view,
            situation.pods,
            self._tools.nodes(),
            self._tools.closing(),
            self.settling.settled(),
            self.settling.lasted(),
            self.last,
        )
        return moves.wanted_move(scene, self._tools.clock.wall()), moves.look_again(scene)

    async def _carry_out(
        self, order: Order, situation: Situation, coordinator: Coordinator
    ) -> None:
        try:
            if isinstance(order, str):
                is_done = await self._pause(order, situation, coordinator)
            else:
                is_done = await self._move(order, situation, coordinator)
            if not is_done:
                self._restraint.failed(order, self._tools.clock.now())
        except NotLeader:
            log.info("command given up: another replica leads election=%s", situation.election.name)
        except ApiError as exc:
            log.warning("result of a command not written error=%s", exc)
            self._restraint.failed(order, self._tools.clock.now())
        finally:
            self._is_busy = False
            self._changed()

    async def _pause(self, what: str, situation: Situation, coordinator: Coordinator) -> bool:
        election = situation.election
        ask: Callable[[Coordinator, str], Coroutine[Any, Any, Outcome]]
        ask = commanding.pause if what == PAUSE else commanding.resume
        outcome = await ask(coordinator, election.election)
        if outcome.result == DONE:
            return True
        log.warning("not done command=%s election=%s: %s", what, election.name, outcome.message)
        self._told(situation, f"{what}{outcome.result}", outcome.message, is_warning=True)
        return False

    async def _move(
        self, wanted: Move | NoMove, situation: Situation, coordinator: Coordinator
    ) -> bool:
        """Have the leader hand over; return False where it is to be tried again."""
        election, to = situation.election, ""
        if isinstance(wanted, NoMove):
            outcome = Outcome(DONE if wanted.is_done else commanding.REFUSED, wanted.message)
        else:
            to = wanted.target.proposal.id
            log.info("handover election=%s reason=%s to=%s", election.name, wanted.reason, to)
            outcome = await commanding.carry_out(
                coordinator, election.election, wanted, drain=commanding.LONGEST_DRAIN
            )
        is_done, is_command = outcome.result == DONE, wanted.reason == moves.COMMAND
        self._tools.meter.moved(election, wanted.reason, outcome.result)
        if is_done or is_command:
            told = account(wanted, outcome, self._tools.clock.wall())
            self.last = {name: value for name, value in told.items() if value is not None}
        said = " ".join(filter(None, (f"{wanted.reason}:", to and f"to {to}", outcome.message)))
        self._told(situation, f"Handover{outcome.result}", said, is_warning=not is_done)
        if is_command:
            await self._take_off(election)
        return is_done or is_command

    async def _take_off(self, election: Election) -> None:
        """Take the annotation off that was obeyed, or refused; another one stays."""
        annotation = f"/metadata/annotations/{HANDOVER_TO.replace('/', '~1')}"
        # No version stands in the way: statuses are written meanwhile, by a round.
        patch = [
            {"op": "test", "path": annotation, "value": election.handover_to},
            {"op": "remove", "path": annotation},
        ]
        try:
            document = await self._tools.api.patch_json(election_path(*election.key), patch)
        except ApiRefused as exc:
            if exc.status in {NOT_FOUND, INVALID}:
                return
            raise
        self._taken_off = str(document["metadata"]["resourceVersion"])

    def _told(self, situation: Situation, what: str, message: str, *, is_warning: bool) -> None:
        token = situation.view.token or situation.view.revision
        self._teller.tell_of_command(
            situation.election, what, message, token=token, is_warning=is_warning
        )
