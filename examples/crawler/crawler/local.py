"""The whole crawler on this machine, to try it out: `make crawler`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import click

from crawler.local_script import Script
from crawler.local_world import ELECTION, World, world
from sidecar.errors import ConfigError, SidecarError
from sidecar.etcd import EtcdCoordinator
from sidecar.values import parse_duration

_AS_PROMISED, _BROKEN, _USAGE = 0, 1, 2
_SHORTEST_TTL = 2.0
_SERVICE = "crawler.CrawlerMaster"
_EXAMPLE = '{"name": "example", "urls": ["https://example.com/"], "depth": 1}'
_LOOK_EVERY = 0.1  # seconds; nothing tells us when a log grows


class _Interrupted(Exception):
    """A signal asks us to end."""


@click.command("crawler")
@click.option("--script", is_flag=True, help="Do the three steps, judge them, and end.")
@click.option("--ttl", default="5s", show_default=True, metavar="DURATION", help="Of the leases.")
def command(*, script: bool, ttl: str) -> int:
    """Start an etcd, Masters 2 and 3 with a sidecar each, and two Workers, all on loopback.

    Prints what to try, then the logs of both Masters; Ctrl-C ends everything. With --script: start
    Master 2, start Master 3, stop Master 2, each judged; exit code 0 only if all went as promised.
    No process and no file is left behind.
    """
    try:
        seconds = parse_duration(ttl)
    except ValueError as exc:
        raise ConfigError([f"--ttl: {exc}"]) from exc
    if seconds < _SHORTEST_TTL:
        raise ConfigError([f"--ttl: {ttl!r} is too short; give {_SHORTEST_TTL:g}s or more"])
    # Nothing but us may write to the terminal; grpc would, when etcd is stopped.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("sidecar").addHandler(logging.NullHandler())
    done = asyncio.run(_run(seconds, _play if script else _watch))
    if done is None and script:
        click.echo("interrupted before the end")
    return _AS_PROMISED if done or (done is None and not script) else _BROKEN


async def _run(ttl: float, what: Callable[[World], Awaitable[bool]]) -> bool | None:
    """Return what was returned, None if a signal came first."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, stop.set)
    result = None
    with world(ttl) as made:
        try:
            async with asyncio.TaskGroup() as group:
                signals = group.create_task(_interrupt(stop), name="signals")
                click.echo("starting an etcd and two Workers ...")
                await made.etcd.start()
                for worker in made.workers:
                    worker.start()
                result = await what(made)
                signals.cancel()
        except* _Interrupted:
            result = None
    return result


async def _interrupt(stop: asyncio.Event) -> None:
    await stop.wait()
    raise _Interrupted


async def _play(made: World) -> bool:
    async with EtcdCoordinator(made.etcd.endpoint) as etcd:
        return await Script(made, etcd, click.echo).run()


async def _watch(made: World) -> bool:
    """Show the Masters' logs until interrupted."""
    for pair in made.masters.values():
        pair.start()
    click.echo(_usage(made))
    shown = {pair.master.name: 0 for pair in made.masters.values()}
    while True:
        for pair in made.masters.values():
            name = pair.master.name
            text = made.log(pair.master)
            complete = text[: text.rfind("\n") + 1]
            for line in complete[shown[name] :].splitlines():
                click.echo(f"{name} | {line}")
            shown[name] = len(complete)
        await asyncio.sleep(_LOOK_EVERY)


def _usage(made: World) -> str:
    two, three = made.masters.values()
    lines = [
        "Masters 2 and 3 run, with a sidecar each. Ask either, whoever leads:",
        f"  curl -i {three.http}/resources --json '{_EXAMPLE}'",
        f"  curl {three.http}/resources/example",
        f"  grpcurl -plaintext {two.grpc} {_SERVICE}/ListNodes",
        f"Each describes its HTTP calls at {two.http}/",
        "The sidecars' forwarders carry a connection to the leader:",
        f"  curl -i {three.host}:{two.ports.forwarded_http}/resources",
        f"  grpcurl -plaintext {three.host}:{two.ports.forwarded_grpc} {_SERVICE}/ListResources",
        "What is in etcd:",
        f"  etcdctl --endpoints {made.etcd.endpoint} get --prefix {ELECTION}/",
        f"  etcdctl --endpoints {made.etcd.endpoint} get --prefix /crawler/results/",
        "Stop the leader, and the other one leads at once:",
        *(
            f"  kill {' '.join(str(child.pid) for child in pair.children)}    # Master "
            f"{pair.number} and its sidecar"
            for pair in made.masters.values()
        ),
        "Ctrl-C ends everything.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command; every error that has a cure is told in a line."""
    try:
        code = command.main(prog_name="crawler", standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        code = _USAGE
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(f"crawler: {problem}", err=True)
        code = _USAGE
    except (SidecarError, BaseExceptionGroup) as exc:
        found = exc.subgroup(SidecarError) if isinstance(exc, BaseExceptionGroup) else exc
        if found is None:
            raise
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        click.echo(f"crawler: {found}", err=True)
        code = _BROKEN
    sys.exit(code)


if __name__ == "__main__":
    main()
