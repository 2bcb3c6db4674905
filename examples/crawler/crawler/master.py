"""A Master: one of several, of which the leader assigns resources to Workers.

Who leads is the sidecar's business; this program reads the sidecar's status directory and takes
part in no election. It answers gRPC and HTTP, and only the leader carries calls out.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from dataclasses import fields
from functools import partial

import click

from crawler import identity, keys
from crawler.calls import OPERATIONS
from crawler.fence import Fence
from crawler.leader import Leader
from crawler.master_metrics import Metrics
from crawler.master_settings import MasterSettings
from crawler.peers import Peers
from crawler.probing import probe
from crawler.program import option, stopping
from crawler.registry import Registry
from crawler.routing import Router
from crawler.rpc import GRACE, RpcServer
from crawler.standing import Standing
from crawler.store_options import StoreOptions, coordinator, store_options
from crawler.web import Web, WebServer
from sidecar.addresses import HostPort
from sidecar.client import Leadership, Term
from sidecar.errors import ConfigError
from sidecar.etcd import EtcdCoordinator
from sidecar.outputs.logs import configure

log = logging.getLogger(__name__)

_option = partial(option, "MASTER_")

_USAGE = 2


class Master:
    """A Master's parts, put together."""

    def __init__(
        self, settings: MasterSettings, etcd: EtcdCoordinator, registry_etcd: EtcdCoordinator
    ) -> None:
        """Take two ways to one store.

        A renewal of the registry's lease gives up soon, and its connection with it; that of the
        data must not suffer from it.
        """
        self.id = identity.master_id(settings.number, settings.grpc.port)
        self._settings = settings
        self._etcd = etcd
        self._registry_etcd = registry_etcd
        self._leadership = Leadership(settings.status_dir)
        self._metrics = Metrics()
        self._standing = Standing(self.id, self._leadership, self._begin)
        self._peers = Peers(self.id, settings.grpc.port)
        self._router = Router(self._standing, self._peers, self._metrics)
        self._rpc = RpcServer(settings.grpc, self._router)
        self._web = Web(self._router, self._leadership, self._metrics)
        self._http = WebServer(settings.http, self._web)
        self._standing.seen.listen(self._leader_changed)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop; then finish what is under way, within a few seconds."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._etcd)
            await stack.enter_async_context(self._registry_etcd)
            await stack.enter_async_context(self._registry())
            await stack.enter_async_context(self._peers)
            async with asyncio.TaskGroup() as group:
                standing = group.create_task(self._standing.run(), name="standing")
                every = self._settings.print_every
                printing = group.create_task(self._standing.print_leader(every), name="printing")
                opening = group.create_task(self._be_ready(), name="ready")
                probing = group.create_task(probe(self._etcd), name="probing")
                group.create_task(self._http.run(), name="http")
                async with self._rpc:
                    log.info("master started id=%s http=%s", self.id, self._settings.http)
                    await stop.wait()
                    log.info("stopping")
                    opening.cancel()
                    self._web.is_ready = False
                    self._router.end_within(GRACE * 0.9)  # each with an answer
                    self._http.stop()
                standing.cancel()
                printing.cancel()
                probing.cancel()

    def _registry(self) -> Registry:
        settings, host = self._settings, identity.host()
        return Registry(
            self._registry_etcd,
            settings.registry_prefix,
            keys.MASTER_SERVICE,
            self.id,
            str(HostPort(host, settings.grpc.port)),
            {"http": str(HostPort(host, settings.http.port)), "protocol": "grpc"},
            ttl=settings.ttl,
            endpoints=tuple(f"CrawlerMaster.{name}" for name in OPERATIONS),
        )

    async def _be_ready(self) -> None:
        leader = await self._standing.first_leader()
        await self._rpc.ready()
        self._web.is_ready = True
        log.info("master ready leader=%s", leader.id)

    def _begin(self, term: Term) -> Leader:
        fence = Fence(self._etcd, self._leadership, term)
        return Leader(self._etcd, self._settings.registry_prefix, fence, self._metrics)

    def _leader_changed(self) -> None:
        seen = self._standing.seen.value
        if seen.leader is not None:
            self._peers.leader_changed(seen.leader.token)


async def run(settings: MasterSettings, store: StoreOptions) -> None:
    """Run a Master until SIGTERM or SIGINT.

    Raises:
        ConfigError: the store's options cannot work; or (in a group) an address is taken.
    """
    etcd, registry_etcd = coordinator(store), coordinator(store)
    await Master(settings, etcd, registry_etcd).run(stopping())


@click.command("master")
@_option("id", "NUMBER", "This Master's number; its id is master<NUMBER>-<IPv4>:<gRPC port>.")
@_option("http", "[HOST]:PORT", "Where to answer HTTP.", ":8081")
@_option("grpc", "[HOST]:PORT", "Where to answer gRPC.", ":9091")
@_option("status-dir", "DIR", "Where the sidecar tells who leads.", "/run/leader-sidecar")
@_option("registry-prefix", "PREFIX", "Where running programs are listed.", keys.REGISTRY)
@_option("ttl", "DURATION", "How long the registry lists a silent Master.", "5s")
@_option("print-leader-every", "DURATION", "How often to log who leads.", "30s")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning"]), default="info")
@click.option("--print-id", is_flag=True, help="Print the id to give to the sidecar, and end.")
@store_options
def command(*, print_id: bool, log_level: str, **given: str | None) -> None:
    """Serve as one of the crawler's Masters, beside a leader-sidecar.

    The sidecar has to stand in the election with the id that --print-id prints. Exit codes: 0
    stopped; 2 usage.
    """
    store = StoreOptions(**{f.name: given.pop(f.name) for f in fields(StoreOptions)})
    texts = {name.replace("_", "-"): text for name, text in given.items() if text is not None}
    settings = MasterSettings.read(texts)
    if print_id:
        click.echo(identity.master_id(settings.number, settings.grpc.port))
        return
    configure("text", log_level)
    asyncio.run(run(settings, store))


def main() -> None:
    """Run the command; every error that has a cure is told in a line."""
    try:
        command.main(prog_name="master", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(_USAGE)
    except ConfigError as exc:
        _tell(exc)
    except BaseExceptionGroup as group:
        problems, rest = group.split(ConfigError)
        if problems is None or rest is not None:
            raise
        for problem in problems.exceptions:
            _tell(problem)


def _tell(error: BaseException) -> None:
    for line in str(error).splitlines():
        click.echo(f"master: {line}", err=True)
    sys.exit(_USAGE)
