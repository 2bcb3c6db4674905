"""`resign`, `handover`, `pause` and `resume`: commands to an election, through etcd."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import click

from sidecar.cli.options import given, settings_options
from sidecar.cli.reaching import reached
from sidecar.election.ports import SystemClock
from sidecar.errors import ConfigError, CoordinatorError
from sidecar.flags import Group
from sidecar.outputs.status import timestamp
from sidecar.settings import StoreSettings
from sidecar.values import parse_duration

if TYPE_CHECKING:
    from sidecar.core.state import Leader
    from sidecar.election.commands import Commands

T = TypeVar("T")

REFUSED = 1

_STORE_HELP = {"election": "The election that the command is for. [default: none, must be given]"}

_LOOK_LIMIT = 5.0  # seconds
_QUEUES_AGAIN = 1.0
"""Seconds in which who has stepped down stands in the queue again, as a rule."""


@click.command("resign")
@settings_options({Group.STORE}, told=_STORE_HELP)
def resign_command(**arguments: str | None) -> int:
    """Have the leader step down in order and queue again.

    \b
    Example:
      leader-sidecar resign --election /resources/election --endpoints http://127.0.0.1:2379
    """

    async def resign(commands: Commands) -> str:
        before = await commands.first()
        after = await commands.resign()
        return await _change(commands, before, after)

    click.echo(_carry_out(arguments, resign))
    return 0


@click.command("handover")
@settings_options({Group.STORE}, told=_STORE_HELP)
@click.option("--to", default="", metavar="ID", help="The candidate's id or key. [default: next]")
def handover_command(to: str, **arguments: str | None) -> int:
    """Have the leader hand over to the next in the queue, or to ID.

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

    async def handover(commands: Commands) -> str:
        before = await commands.first()
        after = await commands.handover(to)
        return await _change(commands, before, after)

    click.echo(_carry_out(arguments, handover))
    return 0


@click.command("pause")
@settings_options({Group.STORE}, told=_STORE_HELP)
@click.option("--for", "duration", metavar="DURATION", help="End by itself after this time.")
def pause_command(duration: str | None, **arguments: str | None) -> int:
    """Let nobody lead until `resume`.

    The leader steps down, the others keep their places.

    \b
    Example:
      leader-sidecar pause --for 10m --election /resources/election \\
        --endpoints http://127.0.0.1:2379
    """
    seconds = None if duration is None else _seconds(duration)

    async def pause(commands: Commands) -> str | None:
        before = await commands.first()
        # From here on, not from when the leader has stepped down: so counts the pause's lease.
        end = None if seconds is None else timestamp(SystemClock().wall() + seconds)
        if not await commands.pause(duration=seconds):
            return None
        after = _who_leads_after(before, await _first(commands))
        return f"paused until {end or '`leader-sidecar resume`'}; {after}"

    paused = _carry_out(arguments, pause)
    click.echo(
        paused or "it is paused already, and goes on as it was; `leader-sidecar resume` ends it"
    )
    return 0 if paused else REFUSED


@click.command("resume")
@settings_options({Group.STORE}, told=_STORE_HELP)
def resume_command(**arguments: str | None) -> int:
    """End a pause.

    \b
    Example:
      leader-sidecar resume --election /resources/election --endpoints http://127.0.0.1:2379
    """

    async def resume(commands: Commands) -> tuple[bool, str]:
        resumed = await commands.resume()
        return resumed, _leads(await _first(commands, within=_QUEUES_AGAIN))

    resumed, who = _carry_out(arguments, resume)
    click.echo(f"{'resumed' if resumed else 'it is not paused'}; {who}")
    return 0 if resumed else REFUSED


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as exc:
        raise ConfigError([f"--for: {exc}"]) from exc
    if seconds < 1:
        raise ConfigError([f"--for: {text!r} is too short; give 1s or more"])
    return seconds


async def _change(commands: Commands, before: Leader | None, after: Leader | None) -> str:
    """Say who leads after a step-down; a lone candidate queues again, and leads again."""
    if after is not None:
        return _leads(after)
    after = await _first(commands, within=_QUEUES_AGAIN)
    name = before.id if before is not None else "the leader"
    if after is None:
        return (
            f"{name} has stepped down, and leads again once it has queued again: nobody else stands"
        )
    if after.id == name:
        return f"{name} leads again, token {after.token}: nobody else stood"
    return _leads(after)


def _who_leads_after(before: Leader | None, after: Leader | None) -> str:
    if after is not None:
        return f"then {after.id} leads"
    if before is not None:
        return f"then {before.id} queues again and leads: nobody else stands"
    return "nobody stands"


def _leads(leader: Leader | None) -> str:
    return "nobody stands yet" if leader is None else f"{leader.id} leads, token {leader.token}"


async def _first(commands: Commands, *, within: float = 0.0) -> Leader | None:
    """Look who stands first; the command is carried out already, so failing to look is no error."""
    try:
        async with asyncio.timeout(within + _LOOK_LIMIT):
            return await commands.first(within=within)
    except (CoordinatorError, TimeoutError):
        return None


def _carry_out(arguments: dict[str, str | None], command: Callable[[Commands], Awaitable[T]]) -> T:
    settings = StoreSettings.read(given(arguments))
    for warning in settings.warnings:
        click.echo(f"warning: {warning}", err=True)
    from sidecar.election.commands import Commands  # noqa: PLC0415 - --help need not wait for it

    async def carry_out() -> T:
        async with reached(settings) as etcd:
            return await command(Commands(etcd, settings.election))

    return asyncio.run(carry_out())
