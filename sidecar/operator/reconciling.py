"""One Election, looked after: what was decided is carried out here, and only what has changed.

A worker follows etcd through an observer of its own and is woken by it, by the watches of
Kubernetes and by time. Each round looks at everything anew, so nothing is lost that came together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from dataclasses import replace

from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.observer import Observer
from sidecar.election.ports import Coordinator
from sidecar.errors import ApiError, ApiRefused, ConfigError, NotLeader
from sidecar.etcd.credentials import Credentials
from sidecar.kube.api import CONFLICT, NOT_FOUND
from sidecar.operator import repair, story
from sidecar.operator.api import election_path
from sidecar.operator.facts import Pod
from sidecar.operator.labelling import Labels
from sidecar.operator.obeying import Orders, Situation
from sidecar.operator.publishing import NewerTermError, NotOursError, Publisher
from sidecar.operator.spec import Election, is_older
from sidecar.operator.status import Astray, Seen, change, status_of
from sidecar.operator.stores import Gated, SharedContact, credentials
from sidecar.operator.story import Gaps, Happening
from sidecar.operator.tools import Retry, Teller, Tools
from sidecar.operator.unreadable import Unreadable
from sidecar.operator.view import View, look, pod_of_leader

log = logging.getLogger(__name__)

_TOGETHER = 0.02  # seconds in which what comes together is taken together
_REREAD = 300.0  # seconds between two readings of an election's keys that nothing asked for
_PROBE = 5.0  # seconds of silence of a cluster
_SECRETS = 300.0  # seconds after which Secrets are read again
_RECHECK = 300.0  # seconds after which Services are looked at again
_FIRST_WORD = 1.0  # seconds in which a store says what it has to say
_LONGEST_PAUSE = 30.0  # seconds between tries of what fails


class ElectionWorker:
    """Looks after one Election until `end`.

    Attributes:
        view: what etcd says of it.
        health: the word in its status.
    """

    def __init__(self, election: Election, tools: Tools) -> None:
        self.election = election
        self.view = View()
        self.health = ""
        self._tools = tools
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._has_new_secrets = asyncio.Event()
        self._written = ""
        self._gaps = Gaps(election.status)
        self._teller = Teller(tools)
        self._labels = Labels(tools, self._teller)
        self._orders = Orders(tools, self._teller, election.status.get("move"), self.wake)
        self._publisher = Publisher(tools.api)
        self._publishing = Retry()
        self._shown_by = str(election.status.get("service") or "")
        self._astray: Astray | None = None
        self._checked_at = tools.clock.now()

    # --- what others tell it ------------------------------------------------------------------

    def wake(self) -> None:
        """Look again soon."""
        self._changed.set()

    def update(self, election: Election) -> bool:
        """Take a newer version; False where only a new worker can follow it."""
        mine = self.election
        followed = (mine.uid, mine.election, mine.store)
        if (election.uid, election.election, election.store) != followed:
            return False
        # What we wrote ourselves comes after an older version.
        is_new = not is_older(election.version, self._written)
        if is_new and replace(election, version="") != replace(mine, version=""):
            self.election = election
            self._orders.note(election.status.get("move"))
            self.wake()
        return True

    def end(self) -> None:
        """Let `run` return."""
        self._ended.set()

    # --- its life -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the election until `end`; survives whatever fails."""
        async with Background() as tasks:
            tasks.start(self._teller.run(), name="operator-events")
            tasks.start(self._live(), name=f"election-{self.election.name}")
            await self._ended.wait()

    async def _live(self) -> None:
        backoff = Backoff(random.SystemRandom(), longest=_LONGEST_PAUSE, first=1.0)
        while True:
            try:
                if isinstance(self.election, Unreadable):
                    await self._explain()
                else:
                    await self._follow(await self._credentials())
                backoff.reset()
            except (ApiError, ConfigError) as exc:
                log.warning("Election cannot be followed election=%s error=%s", self._shown, exc)
                await self._say(str(exc))
            except NotLeader:
                return
            except Exception as exc:
                # One Election that cannot be dealt with takes nothing away from the others.
                log.exception("Election cannot be followed election=%s", self._shown)
                await self._say(f"{type(exc).__name__}: {exc}")
            await backoff.wait()

    async def _explain(self) -> None:
        """Say why the Election cannot be read, until it can: then another worker follows it.

        Raises:
            ApiError: it could not be said.
            NotLeader: another replica says it from now on.
        """
        while isinstance(self.election, Unreadable):
            self._changed.clear()
            problem = self.election.problem
            log.warning("Election cannot be read election=%s error=%s", self._shown, problem)
            await self._write_status([], problem)
            mark = f"{self.election.uid[:8]}.{self.election.generation}"
            invalid = Happening("Invalid", problem, mark, is_warning=True)
            self._teller.tell(self.election, invalid)
            await self._changed.wait()

    async def _say(self, problem: str) -> None:
        """Write a status that says why there is nothing to follow."""
        self.view = View()
        with contextlib.suppress(ApiError, NotLeader):
            await self._write_status([], problem)

    async def _credentials(self) -> Credentials:
        election = self.election
        return await credentials(self._tools.api, election.namespace, election.store)

    async def _follow(self, who: Credentials) -> None:
        """Follow etcd with these credentials until there are others."""
        tools = self._tools
        async with tools.stores.connected(self.election.store, who) as shared:
            observer = Observer(
                shared.coordinator,
                self.election.election,
                clock=tools.clock,
                contact=SharedContact(tools.clock, shared.contact, self.wake),
                reread_every=_REREAD,
                probe_every=_PROBE,
            )
            async with observer, Background() as tasks:
                observer.listen(lambda: self._heard(observer))
                self._has_new_secrets.clear()
                if self.election.store.tls_secret or self.election.store.password_secret:
                    tasks.start(self._reread_secrets(who), name="operator-secrets")
                await self._rounds(observer, Gated(shared.coordinator, tools.gate), tasks)

    def _heard(self, observer: Observer) -> None:
        """Take in the change at once: how long nobody led is measured by it."""
        self.view = look(observer.replica, observer.trouble)
        self._gaps.note(self.view, self._tools.clock.now())
        self._orders.settling.note(self.view)
        self.wake()

    async def _reread_secrets(self, who: Credentials) -> None:
        while True:
            await asyncio.sleep(_SECRETS)
            with contextlib.suppress(ApiError, ConfigError):
                if await self._credentials() != who:
                    log.info("credentials have changed election=%s", self._shown)
                    self._has_new_secrets.set()
                    self.wake()

    async def _rounds(
        self, observer: Observer, coordinator: Coordinator, tasks: Background
    ) -> None:
        backoff = Backoff(random.SystemRandom(), longest=_LONGEST_PAUSE, first=0.2)
        # A status before the store's first word would be told twice.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_WORD):
                await observer.synced()
        self.wake()
        pause = 0.0
        while not self._has_new_secrets.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(_TOGETHER)
            self.view = look(observer.replica, observer.trouble)
            try:
                pause = await self._round(coordinator, tasks)
                backoff.reset()
            except ApiError as exc:
                log.warning("not carried out election=%s error=%s", self._shown, exc)
                pause = backoff.next()

    # --- a round --------------------------------------------------------------------------

    async def _round(self, coordinator: Coordinator, tasks: Background) -> float:
        """Bring everything about that is due; return after how many seconds to look again.

        What is refused, such as a Service or the label of one pod, stands in the way of nothing
        else.

        Raises:
            ApiError: a request failed: the next round tries it again.
            NotLeader: another replica does it from now on.
        """
        pods = self._tools.pods(self.election)
        service = await self._publish(pods)
        wrong, labels = await self._labels.put_right(self.election, lambda: self.view, pods)
        situation = Situation(self.election, self.view, pods, self._is_own_pause())
        orders = self._orders.begin(situation, coordinator, tasks)
        await self._write_status(wrong, "")
        word = self._tell_of_the_leader(pods)
        waits = (_RECHECK, service, labels, orders, word)
        return min(each for each in waits if each is not None)

    async def _publish(self, pods: Sequence[Pod]) -> float | None:
        """Have the Service follow, and one of another name follow no more.

        Returns:
            After how many seconds to look again, or None.
        """
        service, now = self.election.service, self._tools.clock.now()
        if not self.view.is_known or self.view.trouble:
            return None
        if left := self._publishing.left(now):
            return left
        if now >= self._checked_at + _RECHECK:
            self._checked_at = now
            self._publisher.forget()
        shown = str(self.election.status.get("service") or "")
        try:
            if shown and (service is None or shown != service.name):
                await self._publisher.withdraw(self.election, shown)
                self._shown_by = ""
            if service is not None:
                await self._publisher.publish(self.election, service, self.view, pods)
                self._shown_by = service.name
        except (NewerTermError, NotOursError, ApiRefused) as exc:
            self._publishing.failed(now)
            if not isinstance(exc, ApiRefused) or exc.status != CONFLICT:
                log.warning("Service does not follow election=%s error=%s", self._shown, exc)
                is_ahead = isinstance(exc, NewerTermError)
                self._astray = Astray("NewerTermSeen" if is_ahead else "Refused", str(exc))
            return self._publishing.left(now)
        self._publishing.worked()
        self._astray = None
        return None

    def _is_own_pause(self) -> bool:
        was = bool(self.election.status.get("pausedBySpec"))
        if not self.view.is_known or self.view.trouble:
            return was
        return self.view.is_paused and (was or self.election.paused is True)

    async def _write_status(self, wrong: Sequence[str], problem: str) -> None:
        old, tools = self.election.status, self._tools
        pods = tools.pods(self.election)
        seen = Seen(
            self.election,
            self.view,
            pods,
            wrong=wrong,
            late=sorted(pod.name for pod in repair.untold(self.view, pods)),
            problem=problem,
            service=self._shown_by,
            astray=self._astray,
            move=self._orders.last,
            paused_by_spec=self._is_own_pause(),
        )
        new = status_of(seen, tools.clock.wall())
        self.health = str(new["health"])
        patch = change(old, new)
        if not patch:
            return
        try:
            path = election_path(*self.election.key, "status")
            document = await tools.api.patch(path, {"status": patch})
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                return  # the watch tells of its end
            raise
        self._written = str(document.get("metadata", {}).get("resourceVersion", ""))
        self.election = replace(self.election, status=document.get("status") or {})
        self._orders.note(self.election.status.get("move"))
        for happening in story.conditions_changed(old, new):
            self._teller.tell(self.election, happening)

    def _tell_of_the_leader(self, pods: Sequence[Pod]) -> float | None:
        happening, later = self._gaps.tell(self.view, self._tools.clock.now())
        if happening is None:
            return later
        if self._gaps.last is not None:
            self._tools.meter.gap(self.election, self._gaps.last)
        log.info("leader changed election=%s: %s", self._shown, happening.message)
        self._teller.tell(self.election, happening)
        pod = pod_of_leader(self.view, pods)
        if pod is not None and pod.is_ours:  # else its own sidecar tells
            elected = replace(happening, what="LeaderElected", pod=pod)
            self._teller.tell(self.election, elected)
        return None

    @property
    def _shown(self) -> str:
        return f"{self.election.namespace}/{self.election.name}"
