"""The way of every command to etcd: silent for a moment, then a word, and an end in time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import click

from sidecar.core.keys import Layout
from sidecar.election.ports import Clock, SystemClock
from sidecar.errors import CoordinatorError, Unavailable
from sidecar.settings import StoreSettings

if TYPE_CHECKING:
    from sidecar.etcd.coordinator import EtcdCoordinator

_SILENT = 1.0  # seconds without an answer until the user hears what is being tried
_PATIENCE = 5.0  # seconds until it counts as out of reach
_TRY = 1.0
_BETWEEN_TRIES = 0.1


@asynccontextmanager
async def reached(settings: StoreSettings) -> AsyncIterator[EtcdCoordinator]:
    """Open the store, and hand it out once it has answered.

    Raises:
        ConfigError: a file with credentials cannot be used.
        Unavailable: nobody has answered within 5 s.
    """
    # grpc would write its own account of each failed try to stderr.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Here, because it loads grpc, for which --help and bad options need not wait.
    from sidecar.app import store  # noqa: PLC0415

    async with store(settings) as etcd:
        await _first_answer(etcd, settings, SystemClock())
        yield etcd


def out_of_reach(settings: StoreSettings, why: str) -> str:
    """Return the words of all commands for an etcd that does not answer."""
    return f"etcd does not answer at {', '.join(map(str, settings.endpoints))}: {why}"


async def _first_answer(etcd: EtcdCoordinator, settings: StoreSettings, clock: Clock) -> None:
    pause = Layout(settings.election).pause
    began = clock.now()
    is_told = False
    told = ""
    while True:
        left = began + _PATIENCE - clock.now()
        try:
            await etcd.read(pause, pause + b"\0", timeout=min(_TRY, left))
        except Unavailable as exc:
            # That nothing was heard in a try cut short says less than what was heard before.
            if not told or left >= _TRY or _heard(exc):
                told = out_of_reach(settings, _why(exc, has_address=etcd.current != "none"))
        except CoordinatorError:
            return  # an answer, if no good one: the command itself will hear and tell it
        else:
            return
        left = began + _PATIENCE - clock.now()
        if left <= _BETWEEN_TRIES:
            raise Unavailable(told)
        if not is_told and left <= _PATIENCE - _SILENT:
            click.echo(f"{told}; trying for {left:.0f} s more", err=True)
            is_told = True
        await asyncio.sleep(_BETWEEN_TRIES)


def _why(exc: Unavailable, *, has_address: bool) -> str:
    # The endpoints are named by us already, in front of the reason.
    if _heard(exc):
        return str(exc.__cause__)
    return "no answer in time" if has_address else "no name of these has an address"


def _heard(exc: Unavailable) -> bool:
    return isinstance(exc.__cause__, CoordinatorError)
