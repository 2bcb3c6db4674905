"""The table of settings as options of click.

Every option takes a text and leaves the checking to `sidecar.settings`, so that one run tells all
problems, not the first one. Each names its environment variable itself: click's automatic prefix
would put the command's name into it (LEADER_SIDECAR_RUN_TTL).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from sidecar.flags import BY_FIELD, FLAGS, Flag, Group

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(
    groups: Collection[Group] = tuple(Group), *, told: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Give a command the options of some groups of settings, in the order of the table.

    The command gets each as a keyword argument by its field's name; see `given`.

    Args:
        groups: which.
        told: help texts by field, where the table's, which are for `run`, would read wrong.
    """

    def decorate(command: Command) -> Command:
        for flag in reversed(FLAGS):
            if flag.group in groups:
                command = _option(flag, (told or {}).get(flag.field))(command)
        return command

    return decorate


def given(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return, of a command's keyword arguments, the settings that the user gave."""
    return {name: text for name, text in arguments.items() if name in BY_FIELD and text is not None}


def _option(flag: Flag, told: str | None) -> Callable[[Command], Command]:
    text = told or f"{flag.help} [default: {flag.shown_default}]"
    if flag.metavar:
        return click.option(
            flag.flag,
            flag.field,
            envvar=flag.env,
            metavar=flag.metavar,
            help=text,
            show_envvar=True,
        )
    # A switch that also takes a text, as the environment gives it one.
    return click.option(
        flag.flag,
        flag.field,
        envvar=flag.env,
        is_flag=False,
        flag_value="true",
        metavar="[true|false]",
        help=text,
        show_envvar=True,
    )
