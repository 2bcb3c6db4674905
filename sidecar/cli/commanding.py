"""`resign`, `handover`, `pause` and `resume`: commands to an election, through etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from sidecar.cli.options import given, settings_options
from sidecar.cli.reaching import reached
from sidecar.errors import ConfigError
from sidecar.flags import Group
from sidecar.settings import StoreSettings
from sidecar.values import parse_duration

if TYPE_CHECKING:
    from sidecar.core.state import Leader
    from sidecar.election.commands import Commands

T = TypeVar("T")

REFUSED = 1


@click.command("resign")
@settings_options({Group.STORE})
def resign_command(**arguments: str | None) -> int:
    """Have the leader step down in order and queue again.

    \b
    Example:
      leader-sidecar resign --election /resources/election --endpoints http://127.0.0.1:2379
    """
    return _tell_leader(_carry_out(arguments, lambda commands: commands.resign()))


@click.command("handover")
@settings_options({Group.STORE})
@click.option("--to", default="", metavar="ID", help="The candidate's id or key. [default: next]")
def handover_command(to: str, **arguments: str | None) -> int:
    """Have the leader hand over to a candidate, or to the next in the queue.

    With --to it costs one delete per candidate that stands before that one, and each of these
    queues again. Candidates of other programs are never moved: with one of them before it, --to is
    refused.

    \b
    Example:
      leader-sidecar handover --to master-3 --election /resources/election \\
        --endpoints http://127.0.0.1:2379
    """
    try:
        to.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError([f"--to: {to!r} is not valid UTF-8; give an id or a key"]) from exc
    return _tell_leader(_carry_out(arguments, lambda commands: commands.handover(to)))


@click.command("pause")
@settings_options({Group.STORE})
@click.option("--for", "duration", metavar="DURATION", help="End by itself after this time.")
def pause_command(duration: str | None, **arguments: str | None) -> int:
    """Let nobody lead until `resume`: the leader steps down, the others keep their places.

    \b
    Example:
      leader-sidecar pause --for 10m --election /resources/election \\
        --endpoints http://127.0.0.1:2379
    """
    seconds = None if duration is None else _seconds(duration)
    paused = _carry_out(arguments, lambda commands: commands.pause(duration=seconds))
    click.echo("paused" if paused else "it is paused already")
    return 0 if paused else REFUSED


@click.command("resume")
@settings_options({Group.STORE})
def resume_command(**arguments: str | None) -> int:
    """End a pause.

    \b
    Example:
      leader-sidecar resume --election /resources/election --endpoints http://127.0.0.1:2379
    """
    resumed = _carry_out(arguments, lambda commands: commands.resume())
    click.echo("resumed" if resumed else "it is not paused")
    return 0 if resumed else REFUSED


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise ConfigError([f"--for: {exc}"]) from exc
    if seconds < 1:
        raise ConfigError([f"--for: {text!r} is too short; give 1s or more"])
    return seconds


def _tell_leader(leader: Leader | None) -> int:
    if leader is None:
        click.echo("the leader has resigned; nobody leads now")
    else:
        click.echo(f"{leader.id} leads, token {leader.token}")
    return 0


def _carry_out(arguments: dict[str, str | None], command: Callable[[Commands], Awaitable[T]]) -> T:
    settings = StoreSettings.read(given(arguments))
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    from sidecar.election.commands import Commands  # noqa: PLC0415 - --help need not wait for it

    async def carry_out() -> T:
        async with reached(settings) as etcd:
            return await command(Commands(etcd, settings.election))

    return asyncio.run(carry_out())
