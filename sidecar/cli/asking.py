"""`check`, `status` and `observe`: who leads, asked of a status directory, a sidecar, or etcd."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, TypeVar

import click

from sidecar.check import IS_LEADER, NOT_LEADER
from sidecar.cli.options import given, settings_options
from sidecar.cli.sources import Document, NoAnswer, Source, choose
from sidecar.election.ports import SystemClock
from sidecar.errors import ConfigError
from sidecar.flags import Group
from sidecar.outputs.status import timestamp

Command = TypeVar("Command", bound=Callable[..., Any])


_STORE_HELP = {
    "election": "Ask etcd who leads in this election. [default: ask the status directory]",
    "endpoints": "The etcd to ask: http:// or https://, with ports. Needs --election. "
    "[default: http://127.0.0.1:2379 where an --election is given]",
}


def _source_options(command: Command) -> Command:
    command = settings_options({Group.STORE}, told=_STORE_HELP)(command)
    command = click.option("--url", metavar="URL", help="Ask the sidecar at this address.")(command)
    return click.option(
        "--status-dir",
        "status_directory",
        metavar="DIR",
        envvar="LEADER_SIDECAR_STATUS_DIR",
        show_envvar=True,
        help="Read the status file in this directory. [default: /run/leader-sidecar]",
    )(command)


def _source(
    arguments: dict[str, str | None], status_directory: str | None, url: str | None
) -> Source:
    settings = given(arguments)
    if url is not None or "endpoints" in settings:
        # A directory from the environment is no choice that was made here.
        ctx = click.get_current_context()
        source = ctx.get_parameter_source("status_directory")
        if source is click.core.ParameterSource.ENVIRONMENT:
            status_directory = None
    if url is None and status_directory is not None and not _was_typed(settings):
        settings = {}
    return choose(settings, status_dir=status_directory, url=url)


def _was_typed(settings: dict[str, str]) -> bool:
    ctx = click.get_current_context()
    typed = click.core.ParameterSource.COMMANDLINE
    return any(ctx.get_parameter_source(name) is typed for name in settings)


@click.command("check")
@_source_options
@click.option("--id", "own_id", metavar="ID", help="Whom to ask etcd about.")
def check_command(
    own_id: str | None, status_directory: str | None, url: str | None, **arguments: str | None
) -> int:
    """Exit 0 if this candidate leads at this moment, else 1.

    Asked of etcd (--endpoints, --election, --id), it tells who is first in the queue; whether that
    one still acts is known only to itself.

    \b
    Example:
      leader-sidecar check && ./write-the-report
      leader-sidecar check --url http://10.0.0.7:4040
    """
    source = _source(arguments, status_directory, url)
    try:
        document = asyncio.run(_first(source))
    except NoAnswer as exc:
        click.echo(f"check: not leader: {exc}", err=True)
        return NOT_LEADER
    if "role" in document:
        if document["role"] == "leader":
            return IS_LEADER
        click.echo(f"check: not leader: {document['id']} is {document['role']}", err=True)
        return NOT_LEADER
    if own_id is None:
        raise ConfigError(["--id: say whom to ask etcd about"])
    leader = document["leader"]
    if leader is not None and leader["id"] == own_id:
        return IS_LEADER
    who = "nobody leads" if leader is None else f"{leader['id']} leads, token {leader['token']}"
    click.echo(f"check: not leader: {who}", err=True)
    return NOT_LEADER


@click.command("status")
@_source_options
@click.option("--watch", is_flag=True, help="Go on, and show every change with its time.")
@click.option("--json", "as_json", is_flag=True, help="Print the status document.")
def status_command(
    *,
    watch: bool,
    as_json: bool,
    status_directory: str | None,
    url: str | None,
    **arguments: str | None,
) -> int:
    """Show who leads, and what this candidate is.

    \b
    Example:
      leader-sidecar status
      leader-sidecar status --watch --url http://127.0.0.1:4040
      leader-sidecar status --election /resources/election --endpoints http://127.0.0.1:2379
    """
    source = _source(arguments, status_directory, url)
    clock = SystemClock()

    def show(document: Document) -> None:
        if as_json:
            click.echo(json.dumps(document))
        elif watch:
            click.echo(f"--- {timestamp(clock.wall())}\n{_readable(document)}\n")
        else:
            click.echo(_readable(document))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(source, show, forever=watch))
    return 0


@click.command("observe")
@_source_options
def observe_command(status_directory: str | None, url: str | None, **arguments: str | None) -> int:
    """Print a line of JSON per leader, the present one first.

    \b
    Example:
      leader-sidecar observe --election /resources/election --endpoints http://127.0.0.1:2379
    """
    source = _source(arguments, status_directory, url)
    last: list[Any] = []

    def show(document: Document) -> None:
        leader = document.get("leader")
        if last != [leader]:
            last[:] = [leader]
            click.echo(json.dumps({"election": document.get("election"), "leader": leader}))

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_show(source, show, forever=True))
    return 0


async def _first(source: Source) -> Document:
    async with aclosing(source.documents()) as documents:  # type: ignore[type-var]
        return await anext(documents)


async def _show(source: Source, show: Callable[[Document], None], *, forever: bool) -> None:
    async with aclosing(source.documents()) as documents:  # type: ignore[type-var]
        async for document in documents:
            show(document)
            if not forever:
                return


def _readable(document: Document) -> str:
    leader = document.get("leader")
    rows = [("election", document.get("election", ""))]
    if leader:
        where = f" at {leader['address']}" if leader.get("address") else ""
        rows.append(("leader", f"{leader['id']}{where}, token {leader['token']}"))
    else:
        rows.append(("leader", "nobody, or not known"))
    if "role" in document:
        rows.append(("this candidate", f"{document['id']}: {document['role']}"))
        rows.append(("because", document.get("reason", "")))
        rows.append(("link to etcd", document.get("link", "")))
        if "valid_until" in document:
            rows.append(("valid until", document["valid_until"]))
    rows.append(("candidates", ", ".join(document.get("candidates", [])) or "none"))
    if document.get("paused"):
        rows.append(("paused", "yes: nobody acts until `leader-sidecar resume`"))
    return "\n".join(f"{name:<16}{value}" for name, value in rows)
