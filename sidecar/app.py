"""The composition root: builds every part of a sidecar, and decides in which order they end.

Everything that the outside may see goes out through the candidate's feed of `ElectionState`; what
must have been seen before the key is given up, is asked of the outputs by the `StatusKeeper`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import random
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry

from sidecar import health
from sidecar.core.codec import Proposal
from sidecar.core.health import Health, HealthGate
from sidecar.core.state import Link, Reason
from sidecar.election.background import Background
from sidecar.election.backoff import Backoff
from sidecar.election.candidate import Candidate, CandidateConfig, initial_state
from sidecar.election.feed import Feed
from sidecar.election.names import check_name
from sidecar.election.ports import Clock, Standing, SystemClock
from sidecar.errors import CoordinatorError
from sidecar.etcd.coordinator import EtcdCoordinator
from sidecar.etcd.credentials import Credentials, RenewedCredentials, load_credentials
from sidecar.forward.listener import bind as listen_for
from sidecar.forwarding import Forwarding
from sidecar.guard import GuardHandle
from sidecar.kube import label
from sidecar.kube.pod import OwnPod
from sidecar.outputs.endpoints import Endpoints
from sidecar.outputs.health import OutputErrors
from sidecar.outputs.http import HttpServer, bind
from sidecar.outputs.keeper import StatusKeeper
from sidecar.outputs.logs import LeaderLog
from sidecar.outputs.metrics import Metrics
from sidecar.outputs.pod_metrics import PodMetrics
from sidecar.outputs.status import boot_id
from sidecar.outputs.status_dir import StatusDirectory
from sidecar.outputs.status_file import StatusFile
from sidecar.program import Program
from sidecar.retire_socket import RetireSocket
from sidecar.settings import Settings, StoreSettings

log = logging.getLogger(__name__)

_COLLECT_AFTER = 20_000  # objects; Python's own threshold is 700
_TURN = 0.0001  # seconds

_HANDED_ON = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Command:
    """What `exec` runs, and the guard that was started for it."""

    argv: tuple[str, ...]
    guard: GuardHandle


def store(settings: StoreSettings) -> EtcdCoordinator:
    """Return the store that the settings name, not connected yet.

    Raises:
        ConfigError: a file with credentials cannot be used.
    """

    def load() -> Credentials:
        return load_credentials(
            user=settings.user,
            password_file=settings.password_file,
            cacert=settings.cacert,
            cert=settings.cert,
            key=settings.key,
            now=dt.datetime.fromtimestamp(SystemClock().wall(), dt.UTC),
        )

    return EtcdCoordinator(settings.endpoints, RenewedCredentials(load))


def run(settings: Settings, directory: StatusDirectory, command: Command | None = None) -> int:
    """Run a sidecar until it is told to stop.

    Args:
        settings: all of them.
        directory: the status directory, locked.
        command: a program to run while leading (`exec`).

    Returns:
        The exit code: 0 when leadership was given back cleanly or never held; 1 when the key is
        left to end with its lease; with a command that ended, its code.

    Raises:
        ConfigError: the port is taken, a file cannot be used, the election's name collides.
    """
    _tune_the_interpreter()
    etcd = store(settings.store)
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(bind(settings.http.host, settings.http.port))
        forwarding = [sockets.enter_context(each) for each in listen_for(settings.forward)]
        sidecar = Sidecar(
            settings, directory, etcd, listener, forwarding=forwarding, command=command
        )
        return asyncio.run(sidecar.run())


def _tune_the_interpreter() -> None:
    """Keep what stays for good out of the collector's way, and let threads take turns quickly.

    A sidecar makes little garbage in cycles; a collection in the middle of a handover costs more.
    The thread that writes the status needs the interpreter a few times for each write, and the
    event loop is busiest just then: with Python's 5 ms between turns that took 3 ms longer.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
    sys.setswitchinterval(_TURN)


class Sidecar:
    """All parts of one sidecar process."""

    def __init__(
        self,
        settings: Settings,
        directory: StatusDirectory,
        etcd: EtcdCoordinator,
        listener: socket.socket,
        *,
        forwarding: Sequence[socket.socket],
        command: Command | None,
    ) -> None:
        self._settings = settings
        self._forwarding = forwarding
        self._etcd = etcd
        self._clock: Clock = SystemClock()
        config = _config(settings, directory)
        self._feed = feed = Feed(initial_state(config, self._clock))
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry, config.election, feed, self._clock)
        self._errors = errors = OutputErrors(self._metrics.output_failed)
        self._keeper = StatusKeeper(
            directory,
            election=config.election,
            id_=settings.id,
            boot_id=boot_id() or "",
            errors=errors,
        )
        self._candidate = Candidate(
            etcd, config, keeper=self._keeper, clock=self._clock, meter=self._metrics, state=feed
        )
        self._former = _former(settings, directory)
        self._may_resume = command is None
        self._status = StatusFile(directory, feed, self._clock, errors)
        self._log = LeaderLog(feed, self._clock, self._candidate.history)
        endpoints = Endpoints(
            feed,
            self._clock,
            alive=self._candidate.is_turning,
            is_started=lambda: self._status.is_written,
            expose=self._metrics.expose,
            history=self._candidate.history,
            ready_when=settings.ready_when,
        )
        self._http = HttpServer(listener, endpoints.app(), self._clock)
        self._retire = RetireSocket(
            settings.status_dir,
            retire=self._retired,
            stepped_down=self._status.settle,
            given_up=self._given_up,
            errors=errors,
        )
        self._probe = health.probe_from(
            http=settings.health_http, command=settings.health_exec, tcp=settings.health_tcp
        )
        self._keeper.add_believer(self._status.settle)
        self._pod: OwnPod | None = None
        if settings.label is not None:
            self._pod = OwnPod(
                settings.label,
                feed,
                self._clock,
                may_shrink=settings.accept_token_reset,
                drain=settings.drain,
                failures=errors,
                meter=PodMetrics(self._registry, config.election, label.RESULTS),
            )
            self._keeper.add_believer(self._pod.settle)
        self._is_told_to_stop = False
        self._leaving = asyncio.Event()
        self._program: Program | None = None
        if command is not None:
            self._program = Program(
                command.argv, command.guard, feed, self._clock, on_end=self._leave
            )
            self._keeper.add_believer(self._program.settle)

    async def run(self) -> int:
        """Run everything until the candidate has left and all has been told."""
        # A status file of a predecessor may still be true; until that is decided it stays.
        if self._former is None or self._program is not None:
            await self._status.write_initial()
        if self._probe is not None and self._health_at_start is not Health.HEALTHY:
            self._candidate.stand_back()
        async with self._etcd, Background() as outputs:
            self._catch_signals()
            self._start(outputs)
            await self._campaign()
            await self._status.settle()
            if self._pod is not None:
                await self._pod.finish()
        # Nobody follows etcd from here on. Not before the log has ended: it would warn of it.
        last = self._candidate.state.value.at(self._clock.now())
        self._candidate.state.publish(replace(last, link=Link.LOST, leader=None))
        await self._status.settle()
        await self._status.close()
        if self._program is not None and self._program.exit_code is not None:
            return self._program.exit_code
        return 0 if self._candidate.given_back else 1

    def _start(self, outputs: Background) -> None:
        outputs.start(self._http.run(), name="http")
        outputs.start(self._log.run(), name="log")
        outputs.start(self._retire.run(), name="retire")
        outputs.start(self._write_status(), name="status")
        if self._pod is not None:
            outputs.start(self._tell_pod(self._pod), name="pod")
        if self._program is not None:
            outputs.start(self._program.run(), name="program")
        if self._probe is not None:
            outputs.start(self._follow_health(self._probe), name="health")
        if self._settings.forward:
            self._start_forwarding(outputs)

    def _start_forwarding(self, outputs: Background) -> None:
        forwarding = Forwarding(
            self._settings, self._forwarding, self._feed, self._clock, self._registry
        )
        forwarding.start(
            outputs,
            keeper=self._keeper,
            candidate=self._candidate,
            leaving=self._leaving,
            errors=self._errors,
        )

    @property
    def _health_at_start(self) -> Health:
        """A predecessor whose term still runs was healthy; everybody else has to show it."""
        resumes = self._former is not None and self._may_resume and self._status.claimed_for() > 0
        return Health.HEALTHY if resumes else Health.NEVER_HEALTHY

    async def _campaign(self) -> None:
        """Check the election's name as soon as the store answers, then stand until stopped."""
        backoff = Backoff(random.SystemRandom())
        while not self._leaving.is_set():
            try:
                await check_name(self._etcd, self._settings.store.election)
            except CoordinatorError as exc:
                self._candidate.contact.failed("name check", exc)
                await backoff.wait()
            else:
                break
        await self._candidate.run(former=self._former, may_resume=self._may_resume)

    async def _write_status(self) -> None:
        await self._until_decided()
        self._status.follow()

    async def _tell_pod(self, pod: OwnPod) -> None:
        await self._until_decided()
        await pod.run()

    async def _until_decided(self) -> None:
        """Leave what a predecessor told as it is, until it is known whether it is still true."""
        # Bounded by what the predecessor claimed: beyond it there is nothing to keep, and who only
        # resumes later says leader again then. The first status must not wait for etcd.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._status.claimed_for()):
                await self._candidate.decided.wait()

    async def _follow_health(self, probe: health.Probe) -> None:
        settings = self._settings
        await health.run(
            HealthGate(settings.health_failures, self._health_at_start),
            probe,
            interval=settings.health_interval,
            clock=self._clock,
            on_change=self._health_changed,
        )

    def _health_changed(self, gate: HealthGate, _detail: str) -> None:
        if gate.may_stand:
            self._candidate.stand_again()
        else:
            self._candidate.stand_back(Reason.UNHEALTHY)

    def _retired(self) -> None:
        self._candidate.retire(keep_key=self._settings.step_down_order == "program-first")

    async def _given_up(self) -> bool:
        if self._settings.step_down_order == "program-first":
            return True  # it is given up on SIGTERM, which comes only after this answer
        await self._candidate.left.wait()
        return self._candidate.given_back

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        if self._program is not None:
            for number in _HANDED_ON:
                loop.add_signal_handler(number, self._program.signal, number)

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping signal=%s", number.name)
        if self._leaving.is_set() and self._is_told_to_stop:
            self._candidate.hurry()
            self._candidate.stop()
        self._is_told_to_stop = True
        if self._program is not None and number is signal.SIGINT:
            self._program.signal(number)
        self._leave()

    def _leave(self) -> None:
        """Step down and end; with a forwarder the candidate first only leaves, and looks on."""
        self._leaving.set()
        if self._settings.forward:
            self._candidate.leave()
        else:
            self._candidate.stop()


def _config(settings: Settings, directory: StatusDirectory) -> CandidateConfig:
    seen = directory.read_seen(settings.store.election)
    least_token = 0 if seen is None or settings.accept_token_reset else seen.token
    return CandidateConfig(
        settings.store.election,
        Proposal(settings.id, settings.advertise, settings.priority),
        ttl=settings.ttl,
        margin=settings.margin,
        drain=settings.drain,
        least_token=least_token,
    )


def _former(settings: Settings, directory: StatusDirectory) -> Standing | None:
    """Return the candidacy that a predecessor in this directory has left, if it is ours."""
    record = directory.read_session()
    if record is None or (record.election, record.id) != (settings.store.election, settings.id):
        return None
    return Standing(record.lease, record.key, record.token, record.ttl, record.cluster_id)
