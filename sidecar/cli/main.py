"""The commands, loaded one by one when they are called; prints errors and picks exit codes."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

import click

import sidecar
from sidecar.errors import (
    ConfigError,
    NoLeader,
    NotAuthenticated,
    NotLeader,
    PermissionDenied,
    Refused,
    SidecarError,
    Unavailable,
)

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
"""Exit codes; see the epilogue of `--help`."""

COMMANDS = {
    "run": "sidecar.cli.running",
    "exec": "sidecar.cli.running",
    "check": "sidecar.cli.asking",
    "status": "sidecar.cli.asking",
    "observe": "sidecar.cli.asking",
    "resign": "sidecar.cli.commanding",
    "handover": "sidecar.cli.commanding",
    "pause": "sidecar.cli.commanding",
    "resume": "sidecar.cli.commanding",
    "retire": "sidecar.cli.running",
    "rollout": "sidecar.cli.cluster",
    "etcd": "sidecar.cli.cluster",
    "operator": "sidecar.cli.operator",
    "inject": "sidecar.cli.operator",
    "demo": "sidecar.cli.demo",
}


class _Commands(click.Group):
    """Imports a command's module only when the command is wanted."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        command = getattr(module, f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 - the table above says so
        return command


@click.group(
    cls=_Commands,
    epilog="Exit codes: 0 done, or leadership given back cleanly; 1 not leader, refused, or the "
    "term ended otherwise; 2 usage or configuration; 3 etcd unreachable.",
)
@click.version_option(sidecar.__version__, prog_name="leader-sidecar")
def group() -> None:
    """Leader election in etcd for any program, as a container beside it.

    \b
    Example, with an etcd on this machine:
      leader-sidecar run --election /resources/election --id master-2 \\
        --advertise 192.168.0.107:9091 --endpoints http://127.0.0.1:2379
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command; every error is one line (or one per problem) on stderr."""
    name = arguments[0] if arguments else ""
    # What a command has to say it prints; `run` and `exec` set their log up themselves.
    logging.getLogger("sidecar").addHandler(logging.NullHandler())
    try:
        code = group.main(list(arguments), prog_name="leader-sidecar", standalone_mode=False)
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.Abort:
        return REFUSED
    except click.UsageError as exc:
        click.echo(_usage(exc), err=True)
        return USAGE
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(f"leader-sidecar {name}: {problem}", err=True)
        return USAGE
    except SidecarError as exc:
        click.echo(f"leader-sidecar {name}: {exc}", err=True)
        return _code(exc)
    return code if isinstance(code, int) else DONE


def _usage(exc: click.UsageError) -> str:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        return exc.format_message()  # the help itself
    path = exc.ctx.command_path if exc.ctx is not None else "leader-sidecar"
    return f"{path}: {exc.format_message().rstrip('.')}; see --help"


def _code(exc: SidecarError) -> int:
    if isinstance(exc, Unavailable):
        return UNREACHABLE
    if isinstance(exc, NoLeader | NotLeader | Refused):
        return REFUSED
    return USAGE if isinstance(exc, NotAuthenticated | PermissionDenied) else REFUSED
