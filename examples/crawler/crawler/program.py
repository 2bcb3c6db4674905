"""What both programs have in common at their start and end: options, and the signals that stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def option(
    prefix: str, name: str, metavar: str, text: str, default: str = ""
) -> Callable[[Command], Command]:
    """Return an option that may come from the environment, too; without a default it is required.

    The prefix is that of the environment variable, such as ``MASTER_``.
    """
    rule: dict[str, Any] = {"default": default, "show_default": True}
    return click.option(
        f"--{name}",
        metavar=metavar,
        envvar=variable(prefix, name),
        show_envvar=True,
        help=text,
        **(rule if default else {"required": True}),
    )


def variable(prefix: str, name: str) -> str:
    """Return the environment variable of an option."""
    return prefix + name.upper().replace("-", "_")


def stopping() -> asyncio.Event:
    """Return what is set by SIGTERM or SIGINT, from now on."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
