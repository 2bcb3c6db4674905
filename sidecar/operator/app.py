"""One replica of the operator, put together: its own candidacy, admission, and the work of a term.

Two replicas elect a leader among themselves with our own library. Who leads starts kopf once; who
loses ends the process, since kopf is never started twice in one. The key is given up only when
nothing of ours is under way any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket

from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from sidecar.app import store
from sidecar.core.codec import Proposal
from sidecar.core.lease import least_margin
from sidecar.core.state import ElectionState
from sidecar.election.background import Background
from sidecar.election.candidate import Candidate, CandidateConfig, initial_state
from sidecar.election.feed import Feed
from sidecar.election.news import News
from sidecar.election.ports import NoKeeper, SystemClock
from sidecar.operator.admission import Admission
from sidecar.operator.api import Api, configuration
from sidecar.operator.keeping import CertificateKeeper, Webhooks
from sidecar.operator.leading import Leading, Scope, TermGate
from sidecar.operator.metrics import OperatorMetrics
from sidecar.operator.settings import OperatorSettings
from sidecar.operator.stores import Stores
from sidecar.outputs.http import HttpServer, bind
from sidecar.outputs.metrics import Metrics

log = logging.getLogger(__name__)

DONE, LOST = 0, 1
_LAST_WRITES = 5.0  # seconds for what is under way on a planned end
_LAST_ASKED = 3.0  # seconds for which the API server may ask who is about to go
_METHODS = ("GET", "HEAD")


def run(settings: OperatorSettings) -> int:
    """Run a replica until it is told to stop, or has lost its leadership.

    Returns:
        0 when it was told to stop; 1 when it has led and does no more, for a fresh start.

    Raises:
        ConfigError: a port is taken, a file cannot be used, there is no way to the API server.
    """
    with (
        bind(settings.http.host, settings.http.port) as http,
        bind(settings.webhook.host, settings.webhook.port) as webhook,
    ):
        return asyncio.run(_run(settings, http, webhook))


async def _run(settings: OperatorSettings, http: socket.socket, webhook: socket.socket) -> int:
    return await Operator(settings, await configuration(), http, webhook).run()


class _Believer(NoKeeper):
    """The key is given up only when the work of the term has ended."""

    def __init__(self) -> None:
        self.idle = asyncio.Event()
        self.idle.set()

    async def settle(self) -> None:
        """Wait for it; where it does not end, this process does, and the lease ends alone."""
        try:
            # Of the two bounds the other one, of what was begun in the term, comes first.
            async with asyncio.timeout(2 * _LAST_WRITES):
                await self.idle.wait()
        except TimeoutError:
            _end_now(LOST, 2 * _LAST_WRITES)


class Operator:
    """All parts of one replica."""

    def __init__(
        self,
        settings: OperatorSettings,
        found: Configuration,
        http: socket.socket,
        webhook: socket.socket,
    ) -> None:
        self._settings = settings
        self._configuration = found
        self._clock = SystemClock()
        self._etcd = store(settings.store)
        config = CandidateConfig(settings.store.election, Proposal(settings.id), ttl=settings.ttl)
        self._margin = least_margin(settings.ttl)
        self._feed: Feed[ElectionState] = Feed(initial_state(config, self._clock))
        registry = CollectorRegistry()
        self._own = Metrics(registry, config.election, self._feed, self._clock)
        self._metrics = OperatorMetrics(registry, self._leads)
        self._believer = _Believer()
        self._candidate = Candidate(
            self._etcd,
            config,
            keeper=self._believer,
            clock=self._clock,
            meter=self._own,
            state=self._feed,
        )
        self._http = HttpServer(http, self._probes(), self._clock)
        self._webhook = webhook
        self._leading: Leading | None = None
        self._keeper: CertificateKeeper | None = None
        self._exit_code = DONE
        self._stopping = asyncio.Event()

    async def run(self) -> int:
        """Run everything until the candidate has left."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        async with (
            Api(self._configuration, lambda: None, self._metrics) as api,
            self._etcd,
            Background() as stores,
            Background() as tasks,
        ):
            tasks.start(self._http.run(), name="operator-http")
            if self._settings.webhooks is not None:
                self._serve_admission(self._settings.webhooks, api, stores, tasks)
            tasks.start(self._lead(), name="operator-lead")
            await self._candidate.run()
            if self._keeper is not None and self._stopping.is_set():
                # Leadership is given up, admission is not: the Service leads here for a while yet.
                await asyncio.sleep(_LAST_ASKED)
        return self._exit_code

    def _stop(self, number: signal.Signals) -> None:
        log.info("stopping signal=%s", number.name)
        self._stopping.set()
        self._candidate.stop()

    def _leads(self) -> bool:
        return self._feed.value.is_leader(self._clock.now())

    def _holds_evictions(self) -> bool:
        return self._settings.webhooks is not None and bool(self._settings.webhooks.validating)

    # --- leading --------------------------------------------------------------------------

    async def _lead(self) -> None:
        """Wait for the one term of this process, work in it, and end with it."""
        news = News(self._feed, self._clock)
        while not news.look().is_leader(self._clock.now()):
            await news.wait()
        self._believer.idle.clear()
        gate = TermGate(self._feed, self._clock)
        log.info("leading token=%d", gate.token)
        leading = self._leading = Leading(
            self._configuration,
            gate,
            Scope(self._settings.namespaces, self._holds_evictions()),
            clock=self._clock,
            metrics=self._metrics,
            reporter=self._settings.id,
        )
        async with Background() as work:
            work.start(leading.run(), name="operator-term")
            work.start(self._note_failure(leading), name="operator-failure")
            while gate.is_open():
                news.look()
                await news.wait()
            is_planned = self._stopping.is_set()
            within = _LAST_WRITES if is_planned else self._margin
            # What is left, requests under way and the thread that watches, has the time in which
            # nobody else can lead yet.
            loop = asyncio.get_running_loop()
            at_last = loop.call_later(within, _end_now, DONE if is_planned else LOST, within)
        if leading.watch is not None:
            await leading.watch.ended()
        at_last.cancel()
        self._believer.idle.set()
        if not is_planned:
            log.warning("leadership lost; ending, to begin anew")
            self._exit_code = LOST
            self._candidate.stop()

    async def _note_failure(self, leading: Leading) -> None:
        await leading.has_failed.wait()
        log.error("watching has failed; giving leadership up")
        self._exit_code = LOST
        self._candidate.stop()
        await asyncio.Event().wait()

    # --- what is served -------------------------------------------------------------------

    def _serve_admission(
        self, webhooks: Webhooks, api: Api, stores: Background, tasks: Background
    ) -> None:
        keeper = self._keeper = CertificateKeeper(api, webhooks, self._clock, self._metrics)
        admission = Admission(
            api,
            Stores(self._clock, stores),
            self._settings.defaults,
            self._clock,
            self._metrics,
            tasks=tasks,
            reads_nodes=not self._settings.namespaces,
        )
        server = HttpServer(self._webhook, admission.app(), self._clock, keeper.tls)

        async def serve() -> None:
            await keeper.ready.wait()
            await server.run()

        tasks.start(keeper.run(), name="operator-certificate")
        tasks.start(serve(), name="operator-admission")

    def _probes(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._healthz, methods=_METHODS),
                Route("/readyz", self._readyz, methods=_METHODS),
                Route("/metrics", self._expose, methods=_METHODS),
            ]
        )

    async def _healthz(self, _: Request) -> Response:
        """Whether the loops turn; never whether etcd or the API server answer."""
        watch = self._leading.watch if self._leading is not None else None
        is_watching = watch is None or watch.is_alive or self._stopping.is_set()
        return _verdict(self._candidate.is_turning() and is_watching)

    async def _readyz(self, _: Request) -> Response:
        """Whether admission can be served."""
        return _verdict(self._keeper is None or self._keeper.ready.is_set())

    async def _expose(self, request: Request) -> Response:
        content, kind = self._own.expose(request.headers.get("accept", ""))
        return Response(content, headers={"content-type": kind})


def _end_now(code: int, within: float) -> None:
    """End this process as it is: what is left of a term may not outlive it."""
    log.critical("the work of the term has not ended in %.1f s; ending the process", within)
    os._exit(code)


def _verdict(holds: bool) -> Response:
    return PlainTextResponse("ok" if holds else "not ok", 200 if holds else 503)
