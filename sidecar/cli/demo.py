"""`demo`: an etcd and three sidecars on this machine, live in the terminal or by script."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys

import click

from sidecar.errors import ConfigError
from sidecar.values import parse_duration

_AS_PROMISED, _BROKEN = 0, 1
_SHORTEST_TTL = 2.0


@click.command("demo")
@click.option("--script", is_flag=True, help="Each step once, a line per step, no terminal needed.")
@click.option("--ttl", default="5", show_default=True, metavar="DURATION", help="Of the leases.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Where the demo's etcd listens, on 127.0.0.1. [default: any free port]",
)
def demo_command(*, script: bool, ttl: str, port: int | None) -> int:
    """Start an etcd and three sidecars, and disturb them.

    On a terminal: a live view, with keys to kill the leader, hand over, freeze the leader, stop
    and start etcd, pause and resume. With --script, or without a terminal: each of these once, and
    exit code 0 only if all of it went as promised. No process and no file is left behind.

    \b
    Example:
      leader-sidecar demo
      leader-sidecar demo --script --ttl 3
    """
    seconds = _seconds(ttl)
    # Nothing but the demo may write to the terminal; grpc would, when etcd is stopped.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("sidecar").addHandler(logging.NullHandler())
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    if script or not is_terminal:
        return _script(seconds, port or 0)
    return _live(seconds, port or 0)


def _seconds(ttl: str) -> float:
    try:
        seconds = parse_duration(ttl)
    except ValueError as exc:
        raise ConfigError([f"--ttl: {exc}"]) from exc
    if seconds < _SHORTEST_TTL:
        raise ConfigError([f"--ttl: {ttl!r} is too short; give {_SHORTEST_TTL:g}s or more"])
    return seconds


def _script(ttl: float, port: int) -> int:
    from sidecar.demo.runner import run_script  # noqa: PLC0415 - --help need not wait for it

    return _AS_PROMISED if run_script(ttl, port, click.echo) else _BROKEN


def _live(ttl: float, port: int) -> int:
    if importlib.util.find_spec("rich") is None:
        raise ConfigError(["the live view needs rich; run: pip install 'leader-sidecar[demo]'"])
    from sidecar.demo.runner import run_live  # noqa: PLC0415 - --help need not wait for it

    click.echo("starting an etcd and three sidecars ...")
    ledger = run_live(ttl, port)
    for promise in ledger.broken:
        click.echo(f"broken: {promise}", err=True)
    if ledger.broken:
        return _BROKEN
    click.echo(f"{ledger.terms} terms; in {ledger.looks} looks never two leaders")
    return _AS_PROMISED
