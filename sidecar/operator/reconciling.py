"""One Election, looked after: what was decided is carried out here, and only what has changed.

A worker follows etcd through an observer of its own and is woken by it, by the watches of
Kubernetes and by time. Each round looks at everything anew, so nothing is lost that came together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.observer import Observer
from sidecar.election.ports import Clock, Coordinator
from sidecar.errors import ApiError, ApiRefused, ConfigError, NotLeader
from sidecar.etcd.credentials import Credentials
from sidecar.operator import commanding, moves, repair, story
from sidecar.operator.api import (
    CONFLICT,
    INVALID,
    NOT_FOUND,
    Api,
    Gate,
    core_path,
    election_path,
)
from sidecar.operator.commanding import DONE, Outcome, Restraint
from sidecar.operator.facts import Pod, read_pod
from sidecar.operator.moves import Move, NoMove, Scene, Settling
from sidecar.operator.names import HANDOVER_TO
from sidecar.operator.publishing import NotOursError, Publisher
from sidecar.operator.repair import Patience, Repair
from sidecar.operator.spec import Election
from sidecar.operator.status import Seen, change, stamp, status_of
from sidecar.operator.stores import Gated, SharedContact, Stores, credentials
from sidecar.operator.story import Gaps, Happening
from sidecar.operator.view import View, look

log = logging.getLogger(__name__)

_TOGETHER = 0.02  # seconds in which what comes together is taken together
_REREAD = 300.0  # seconds between two readings of an election's keys that nothing asked for
_PROBE = 5.0  # seconds of silence of a cluster
_SECRETS = 300.0  # seconds after which Secrets are read again
_RECHECK = 300.0  # seconds after which Services are looked at again
_WRONG_FOR = 1.0  # seconds after which labels that disagree are told of
_LONGEST_PAUSE = 30.0  # seconds between tries of what fails


class OperatorMeter(Protocol):
    """Who counts what the operator does."""

    def repaired(self, election: Election) -> None:
        """A label was put right that its sidecar had left wrong."""
        ...

    def moved(self, election: Election, reason: str, result: str) -> None:
        """A planned move ended."""
        ...

    def gap(self, election: Election, seconds: float) -> None:
        """The leader changed, and nobody led for so long."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What all workers share.

    Attributes:
        pods: returns the pods of an Election.
        nodes: returns the nodes by name, or None where they may not be read.
        keep_pod: takes in a pod as a patch has left it; `lose_pod` one that is gone.
        reporter: name of the own pod, for Events.
    """

    api: Api
    stores: Stores
    clock: Clock
    gate: Gate
    meter: OperatorMeter
    pods: Callable[[Election], list[Pod]]
    nodes: Callable[[], Mapping[str, Any] | None]
    keep_pod: Callable[[Pod], None]
    lose_pod: Callable[[tuple[str, str]], None]
    reporter: str


class ElectionWorker:
    """Looks after one Election until `end`."""

    def __init__(self, election: Election, tools: Tools) -> None:
        self.election = election
        self.view = View()
        self.health = ""
        self._tools = tools
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._renewed = asyncio.Event()
        self._written = ""
        self._move: Mapping[str, Any] | None = election.status.get("move")
        self._moved_at = 0.0
        self._gaps = Gaps()
        self._settling = Settling(tools.clock.now)
        self._patience = Patience()
        self._wrong_since: float | None = None
        self._restraint = Restraint()
        self._publisher = Publisher(tools.api)
        self._checked_at = tools.clock.now()
        self._is_busy = False
        self._told: set[tuple[str, str]] = set()
        self._later: list[float] = []

    # --- what others tell it ------------------------------------------------------------------

    def wake(self) -> None:
        """Look again soon."""
        self._changed.set()

    def update(self, election: Election) -> bool:
        """Take a newer version; False where only a new worker can follow it."""
        mine = self.election
        if (election.uid, election.election, election.store) != (
            mine.uid,
            mine.election,
            mine.store,
        ):
            return False
        if _is_older(election.version, self._written):
            return True  # what we wrote ourselves comes after it
        if replace(election, version="") != replace(mine, version=""):
            self.election = election
            self.wake()
        return True

    def end(self) -> None:
        """Let `run` return."""
        self._ended.set()

    # --- its life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the election until `end`; survives whatever fails."""
        async with Background() as tasks:
            tasks.start(self._live(), name=f"election-{self.election.name}")
            await self._ended.wait()

    async def _live(self) -> None:
        backoff = Backoff(random.SystemRandom(), longest=_LONGEST_PAUSE, first=1.0)
        while True:
            try:
                who = await credentials(
                    self._tools.api, self.election.namespace, self.election.store
                )
                await self._follow(who)
                backoff.reset()
            except (ApiError, ConfigError) as exc:
                log.warning("Election cannot be followed election=%s error=%s", self._shown, exc)
                await self._say(str(exc))
            except NotLeader:
                return
            await backoff.wait()

    async def _say(self, problem: str) -> None:
        """Write a status that says why there is nothing to follow."""
        self.view = View()
        with contextlib.suppress(ApiError, NotLeader):
            await self._write_status(self._seen([], problem=problem))

    async def _follow(self, who: Credentials) -> None:
        """Follow etcd with these credentials until there are others."""
        tools = self._tools
        async with tools.stores.connected(self.election.store, who) as shared:
            contact = SharedContact(tools.clock, shared.contact, self.wake)
            observer = Observer(
                shared.coordinator,
                self.election.election,
                clock=tools.clock,
                contact=contact,
                reread_every=_REREAD,
                probe_every=_PROBE,
            )
            coordinator = Gated(shared.coordinator, tools.gate)
            async with observer, Background() as tasks:
                observer.listen(lambda: self._heard(observer))
                self._renewed.clear()
                if self.election.store.tls_secret or self.election.store.password_secret:
                    tasks.start(self._reread_secrets(who), name="operator-secrets")
                await self._rounds(observer, coordinator, tasks)

    def _heard(self, observer: Observer) -> None:
        """Take in the change at once: how long it took is measured by it."""
        self.view = look(observer.replica, observer.trouble)
        self._gaps.note(self.view, self._tools.clock.now())
        self._settling.note(self.view)
        self.wake()

    async def _reread_secrets(self, who: Credentials) -> None:
        while True:
            await asyncio.sleep(_SECRETS)
            with contextlib.suppress(ApiError, ConfigError):
                found = await credentials(
                    self._tools.api, self.election.namespace, self.election.store
                )
                if found != who:
                    log.info("credentials have changed election=%s", self._shown)
                    self._renewed.set()
                    self.wake()

    async def _rounds(
        self, observer: Observer, coordinator: Coordinator, tasks: Background
    ) -> None:
        backoff = Backoff(random.SystemRandom(), longest=_LONGEST_PAUSE, first=0.2)
        # What a store has to say comes in a moment; a status before it would be told twice.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_WRONG_FOR):
                await observer.synced()
        self.wake()
        pause: float | None = None
        while not self._renewed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(_TOGETHER)
            self.view = look(observer.replica, observer.trouble)
            try:
                pause = await self._round(coordinator, tasks)
                backoff.reset()
            except NotLeader:
                return
            except ApiError as exc:
                log.warning("not carried out election=%s error=%s", self._shown, exc)
                pause = backoff.next()

    # --- a round --------------------------------------------------------------------------

    async def _round(self, coordinator: Coordinator, tasks: Background) -> float | None:
        """Bring everything about that is due; return after how many seconds to look again."""
        tools, now = self._tools, self._tools.clock.now()
        self._later = [_RECHECK]
        if now >= self._checked_at + _RECHECK:
            self._checked_at = now
            self._publisher.forget()
        pods = tools.pods(self.election)
        problem = await self._publish(pods)
        wrong = await self._repair(pods, now)
        self._command(coordinator, tasks, pods)
        await self._write_status(self._seen(wrong, problem=problem))
        await self._tell_of_the_leader(pods)
        return min(self._later)

    async def _publish(self, pods: list[Pod]) -> str:
        service = self.election.service
        if service is None or not self.view.is_known or self.view.trouble:
            return ""
        try:
            await self._publisher.publish(self.election, service, self.view, pods)
        except NotOursError as exc:
            return str(exc)
        return ""

    async def _repair(self, pods: list[Pod], now: float) -> list[str]:
        """Put labels right; return the names of pods that have been wrong for too long."""
        found = repair.disagreements(self.view, pods)
        due, later = self._patience.due(found, now)
        if later is not None:
            self._later.append(later)
        failed = [each for each in due if not await self._put_right(each)]
        left = [each.pod.name for each in found if each not in due] + [
            each.pod.name for each in failed
        ]
        if not left:
            self._wrong_since = None
            return []
        if self._wrong_since is None:
            self._wrong_since = now
        if now < self._wrong_since + _WRONG_FOR:
            self._later.append(self._wrong_since + _WRONG_FOR - now)
            return []
        return sorted(left)

    async def _put_right(self, each: Repair) -> bool:
        pod, tools = each.pod, self._tools
        try:
            document = await tools.api.patch(core_path(*_in(pod, "pods")), each.patch)
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                tools.lose_pod(pod.key)
                return True
            if exc.status in {CONFLICT, INVALID}:
                # It is at another version: the watch will bring it, or it is asked for.
                await self._look_at(pod)
                return False
            raise
        tools.keep_pod(read_pod(document))
        if not pod.is_ours:
            tools.meter.repaired(self.election)
            log.info("label repaired pod=%s role=%s", pod.name, each.wanted.role)
            said = f"{pod.marks.role or 'nothing'} was shown, {each.wanted.role} is true"
            mark = f"{self.view.revision}"
            await self._tell(Happening("LabelRepaired", said, mark, is_warning=True, pod=pod))
        return True

    async def _look_at(self, pod: Pod) -> None:
        found = await self._tools.api.find(core_path(*_in(pod, "pods")))
        if found is None:
            self._tools.lose_pod(pod.key)
        else:
            self._tools.keep_pod(read_pod(found))
        self.wake()

    # --- status and Events ----------------------------------------------------------------

    def _seen(self, wrong: list[str], *, problem: str = "") -> Seen:
        pods = self._tools.pods(self.election)
        late = [pod.name for pod in repair.untold(self.view, pods)]
        return Seen(
            self.election,
            self.view,
            pods,
            wrong=wrong,
            late=sorted(late),
            problem=problem,
            move=self._move,
            paused_by_spec=self._is_paused_by_spec(),
        )

    def _is_paused_by_spec(self) -> bool:
        if not self.view.is_known or self.view.trouble:
            return bool(self.election.status.get("pausedBySpec"))
        if not self.view.is_paused:
            return False
        return self.election.paused is True or bool(self.election.status.get("pausedBySpec"))

    async def _write_status(self, seen: Seen) -> None:
        old = self.election.status
        new = status_of(seen, self._tools.clock.wall())
        self.health = str(new["health"])
        patch = change(old, new)
        if not patch:
            return
        key = self.election.key
        try:
            document = await self._tools.api.patch(election_path(*key, "status"), {"status": patch})
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                return  # the watch tells of its end
            raise
        self._written = str(document.get("metadata", {}).get("resourceVersion", ""))
        self.election = replace(self.election, status=document.get("status") or {})
        for happening in story.conditions_changed(old, new):
            await self._tell(happening)

    async def _tell_of_the_leader(self, pods: list[Pod]) -> None:
        happening, later = self._gaps.tell(self.view, self._tools.clock.now())
        if later is not None:
            self._later.append(later)
        if happening is None:
            return
        if self._gaps.last is not None:
            self._tools.meter.gap(self.election, self._gaps.last)
        log.info("leader changed election=%s: %s", self._shown, happening.message)
        await self._tell(happening)
        leader = self.view.leader
        pod = next((p for p in pods if leader and p.name == leader.proposal.id), None)
        if pod is not None and pod.is_ours:
            await self._tell(replace(happening, what="LeaderElected", pod=pod))

    async def _tell(self, happening: Happening) -> None:
        """Create an Event; one that is there already was told by somebody before us."""
        event = story.event(
            happening, self.election, self._tools.clock.wall(), self._tools.reporter
        )
        try:
            await self._tools.api.create(core_path(self.election.namespace, "events"), event)
        except ApiRefused as exc:
            if exc.status != CONFLICT:
                log.warning("Event refused reason=%s error=%s", happening.what, exc)
        except ApiError as exc:
            log.warning("Event lost reason=%s error=%s", happening.what, exc)

    # --- commands -------------------------------------------------------------------------

    def _command(self, coordinator: Coordinator, tasks: Background, pods: list[Pod]) -> None:
        """Begin the command that is due, if any; one at a time, beside the rounds."""
        if self._is_busy or not self.view.is_known or self.view.trouble:
            return
        name = self.election.election
        what: object
        work: Callable[[], Coroutine[Any, Any, None]]
        if self.election.paused is True and not self.view.is_paused:
            what = "pause"
            work = lambda: self._obeyed("Pause", commanding.pause(coordinator, name))  # noqa: E731
        elif self.election.paused is not True and self._is_paused_by_spec():
            what = "resume"
            work = lambda: self._obeyed("Resume", commanding.resume(coordinator, name))  # noqa: E731
        else:
            scene = self._scene(pods)
            if (again := moves.look_again(scene)) is not None:
                self._later.append(again)
            wanted = moves.wanted_move(scene, self._tools.clock.wall())
            if wanted is None:
                return
            what = wanted
            work = lambda: self._move_on(coordinator, wanted)  # noqa: E731
        left = self._restraint.left(what, self._tools.clock.now())
        if left:
            self._later.append(left)
            return
        self._is_busy = True
        tasks.start(self._beside(what, work()), name="operator-command")

    def _scene(self, pods: list[Pod]) -> Scene:
        return Scene(
            self.election,
            self.view,
            pods,
            self._tools.nodes(),
            self._settling.settled(),
            self._move,
            self._moved_at,
        )

    async def _beside(self, what: object, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except _Unfulfilled:
            self._restraint.failed(what, self._tools.clock.now())
        except NotLeader:
            log.info("command given up: another replica leads election=%s", self._shown)
        except ApiError as exc:
            log.warning("result of a command not written election=%s error=%s", self._shown, exc)
            self._restraint.failed(what, self._tools.clock.now())
        finally:
            self._is_busy = False
            self.wake()

    async def _obeyed(self, what: str, command: Coroutine[Any, Any, Outcome]) -> None:
        outcome = await command
        if outcome.result != DONE:
            log.warning("not done command=%s election=%s: %s", what, self._shown, outcome.message)
            await self._tell_once(f"{what}{outcome.result}", outcome.message, is_warning=True)
            raise _Unfulfilled

    async def _move_on(self, coordinator: Coordinator, wanted: Move | NoMove) -> None:
        election, to = self.election, ""
        if isinstance(wanted, NoMove):
            outcome = Outcome(commanding.REFUSED, wanted.message)
        else:
            to = wanted.target.proposal.id
            log.info("handover election=%s reason=%s to=%s", self._shown, wanted.reason, to)
            outcome = await commanding.carry_out(coordinator, election.election, wanted)
        is_done = outcome.result == DONE
        self._tools.meter.moved(election, wanted.reason, outcome.result)
        self._moved_at = self._tools.clock.wall()
        if is_done or wanted.reason == moves.COMMAND:
            self._move = _move(wanted, to, outcome, self._moved_at)
        said = f"{wanted.reason}: {f'to {to}' if to else ''} {outcome.message}".strip()
        await self._tell_once(f"Handover{outcome.result}", said, is_warning=not is_done)
        if wanted.reason == moves.COMMAND:
            await self._take_off(election)
        elif not is_done:
            raise _Unfulfilled

    async def _take_off(self, election: Election) -> None:
        """Take the annotation off that was obeyed, or refused; another one stays."""
        path = election_path(*election.key)
        found = await self._tools.api.find(path)
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        if found is None or annotations.get(HANDOVER_TO) != election.handover_to:
            return
        metadata = {
            "resourceVersion": found["metadata"]["resourceVersion"],
            "annotations": {HANDOVER_TO: None},
        }
        document = await self._tools.api.patch(path, {"metadata": metadata})
        self._written = str(document["metadata"]["resourceVersion"])
        self.election = replace(self.election, handover_to="")

    async def _tell_once(self, what: str, message: str, *, is_warning: bool) -> None:
        # The same refusal is told once for a term, however often it is tried.
        mark = f"{self.view.token or self.view.revision}"
        if is_warning:
            if (what, message) in self._told:
                return
            self._told = {(what, message)}
        else:
            self._told.clear()
        mark += f".{stamp(self._tools.clock.wall())[11:19].replace(':', '')}"
        await self._tell(Happening(what, message, mark, is_warning))

    @property
    def _shown(self) -> str:
        return f"{self.election.namespace}/{self.election.name}"


class _Unfulfilled(Exception):
    """A command was not carried out."""


def _move(wanted: Move | NoMove, to: str, outcome: Outcome, at: float) -> dict[str, Any]:
    fields = {
        "reason": wanted.reason,
        "token": wanted.token,
        "to": to,
        "result": outcome.result,
        "message": outcome.message,
        "at": stamp(at),
    }
    return {name: value for name, value in fields.items() if value}


def _in(pod: Pod, kind: str) -> tuple[str, str, str]:
    return pod.namespace, kind, pod.name


def _is_older(version: str, written: str) -> bool:
    """Whether a version comes before the one that we wrote; unknown ones do not."""
    return version.isdigit() and written.isdigit() and int(version) < int(written)
