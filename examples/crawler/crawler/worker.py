"""A Worker: crawls what the leading Master assigns to it, and nothing else.

It is registered on a lease of its own. While the lease lives it follows its part of etcd,
`/crawler/assignments/<id>/`; when its last proof is too old it ends everything, before the Master
can have given its resources to another one, and begins anew once it is registered again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import click
from prometheus_client import start_http_server

from crawler import keys
from crawler.fetch import Fetcher
from crawler.job import Jobs
from crawler.mirror import Mirror
from crawler.program import option, stopping
from crawler.registry import NodeIdInUse, Place, Registry
from crawler.store_options import StoreOptions, all_of, coordinator, store_options
from crawler.tasks import Task, Tasks
from crawler.worker_metrics import WorkerMetrics
from sidecar.addresses import HostPort, own_address, parse_listen
from sidecar.errors import ConfigError
from sidecar.etcd import EtcdCoordinator
from sidecar.outputs.logs import configure
from sidecar.values import parse_duration, parse_id

log = logging.getLogger(__name__)

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

LOOPBACK = "127.0.0.1"
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - what a port alone asks for
_REFUSED, _USAGE = 1, 2
_LEAST_TTL = 2.0

_option = partial(option, "CRAWLER_")


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a Worker is told.

    Attributes:
        metrics: where to answer to Prometheus.
        again: seconds from the end of one crawl of a resource to its next.
        ttl: seconds; of the lease.
        is_fetching: False: take resources and fetch nothing.
    """

    id: str
    metrics: HostPort
    registry_prefix: str
    again: float
    ttl: float
    is_fetching: bool

    @classmethod
    def read(cls, given: Mapping[str, str], *, is_fetching: bool) -> WorkerSettings:
        """Check the texts of the options, by their names.

        Raises:
            ConfigError: with all problems, each naming its option.
        """
        problems: list[str] = []

        def value(name: str, parse: Callable[[str], T]) -> T | None:
            try:
                return parse(given[name])
            except ValueError as exc:
                problems.append(f"--{name}: {exc}")
                return None

        id_ = value("id", _parse_worker_id)
        metrics = value("metrics", parse_listen)
        again, ttl = value("again", parse_duration), value("ttl", _parse_ttl)
        if id_ is None or metrics is None or again is None or ttl is None:
            raise ConfigError(problems)
        return cls(id_, metrics, given["registry-prefix"], again, ttl, is_fetching)

    def address(self, port: int) -> str:
        """Return where others reach this Worker, whose metrics are at `port`."""
        host = self.metrics.host or os.environ.get("POD_IP") or own_address() or LOOPBACK
        return str(HostPort(host, port))


class Worker:
    """A Worker's life, on a store and with a registration that others have opened."""

    def __init__(self, jobs: Jobs, *, is_fetching: bool) -> None:
        self._jobs = jobs
        self._registry = jobs.registry
        self._metrics = jobs.metrics
        self._is_fetching = is_fetching

    async def run(self) -> None:
        """Crawl whenever the lease allows, until cancelled."""
        while True:
            place = await self._registry.registered()
            self._metrics.registered.set(1)
            try:
                await self._crawl(place)
            finally:
                self._metrics.registered.set(0)

    async def _crawl(self, place: Place) -> None:
        """Do what is assigned until the registration may have ended."""

        def work(task: Task) -> Coroutine[Any, Any, None]:
            return self._jobs.run(task, place)

        worker = self._jobs.worker
        start = keys.assignments(worker)
        async with (
            Mirror(self._jobs.coordinator, start, keys.prefix_end(start)) as mirror,
            asyncio.TaskGroup() as group,
        ):
            tasks = Tasks(worker, group, work if self._is_fetching else None, self._metrics)
            following = group.create_task(_follow(mirror, tasks), name="assignments")
            await self._registry.lapsed(place)
            log.warning("the lease may run out, crawling stops resources=%d", len(tasks))
            following.cancel()
            tasks.drop_all()


async def _follow(mirror: Mirror, tasks: Tasks) -> None:
    async for changed in mirror.changes():
        tasks.follow(mirror.kvs, changed)


async def run(settings: WorkerSettings, etcd: EtcdCoordinator) -> None:
    """Run a Worker until SIGTERM or SIGINT.

    Raises:
        NodeIdInUse: (in a group) another living Worker has this id.
    """
    metrics = WorkerMetrics()
    with _serving(metrics, settings.metrics) as port:
        async with (
            etcd,
            Fetcher() as fetcher,
            Registry(
                etcd,
                settings.registry_prefix,
                keys.WORKER_SERVICE,
                settings.id,
                settings.address(port),
                ttl=settings.ttl,
            ) as registry,
            asyncio.TaskGroup() as group,
        ):
            jobs = Jobs(settings.id, etcd, registry, fetcher, metrics, settings.again)
            worker = Worker(jobs, is_fetching=settings.is_fetching)
            working = group.create_task(worker.run(), name="worker")
            await stopping().wait()
            log.info("stopping")
            working.cancel()


@contextlib.contextmanager
def _serving(metrics: WorkerMetrics, where: HostPort) -> Iterator[int]:
    """Answer to Prometheus; yields the port."""
    host = where.host or _EVERY_ADDRESS
    try:
        server, thread = start_http_server(where.port, host, registry=metrics.registry)
    except OSError as exc:
        why = (exc.strerror or str(exc)).lower()
        raise ConfigError([f"--metrics: cannot listen on {where}: {why}; give another"]) from exc
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse_worker_id(text: str) -> str:
    if "/" in text:
        raise ValueError(f"{text!r} holds a slash; leave it out")
    return parse_id(text)


def _parse_ttl(text: str) -> float:
    ttl = parse_duration(text)
    if ttl < _LEAST_TTL:
        raise ValueError(f"{text!r} is too short for a lease; give {_LEAST_TTL:g}s or more")
    return ttl


@click.command("worker")
@_option("id", "ID", "This Worker's name, different from all others'.")
@_option("metrics", "[HOST]:PORT", "Where to answer to Prometheus.", ":9100")
@_option("registry-prefix", "PREFIX", "Where running programs are listed.", keys.REGISTRY)
@_option("again", "DURATION", "From the end of a resource's crawl to its next.", "5m")
@_option("ttl", "DURATION", "How long etcd keeps the lease of a silent Worker.", "5s")
@click.option("--no-fetch", is_flag=True, help="Take resources, and fetch nothing.")
@store_options
def command(*, no_fetch: bool, **given: str | None) -> None:
    """Crawl what the leading Master assigns to this Worker.

    Exit codes: 0 stopped; 1 the id is in use; 2 usage.
    """
    store = StoreOptions(**{f.name: given.pop(f.name) for f in fields(StoreOptions)})
    texts = {name.replace("_", "-"): text for name, text in given.items() if text is not None}
    settings, etcd = all_of(
        lambda: WorkerSettings.read(texts, is_fetching=not no_fetch), lambda: coordinator(store)
    )
    configure("text", "info")
    asyncio.run(run(settings, etcd))


def main() -> None:
    """Run the command; every error that has a cure is told in a line."""
    try:
        command.main(prog_name="worker", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(_USAGE)
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(f"worker: {problem}", err=True)
        sys.exit(_USAGE)
    except BaseExceptionGroup as group:
        refusal = _first(group, NodeIdInUse)
        if refusal is None:
            raise
        click.echo(f"worker: --id: {refusal}", err=True)
        sys.exit(_REFUSED)


def _first(group: BaseExceptionGroup[BaseException], kind: type[E]) -> E | None:
    """Return the first exception of a kind in a group."""
    for exc in group.exceptions:
        found = _first(exc, kind) if isinstance(exc, BaseExceptionGroup) else exc
        if isinstance(found, kind):
            return found
    return None


if __name__ == "__main__":
    main()
