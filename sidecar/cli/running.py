"""`run`, `exec` and `retire`: the commands that are a sidecar, or speak to the one beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from sidecar.cli.options import given, settings_options
from sidecar.errors import ConfigError
from sidecar.retire import retire

if TYPE_CHECKING:
    from sidecar.settings import Settings

log = logging.getLogger(__name__)

_PREDECESSOR = 10.0
"""Seconds that `exec` waits for the command of a predecessor that was killed."""

_READER = 0.2
"""Seconds that `run` waits for a `status` that is just looking whether anybody has the lock."""


@click.command("run")
@settings_options()
def run_command(**arguments: str | None) -> int:
    """Stand in an election until told to stop: the sidecar itself.

    \b
    Example:
      leader-sidecar run --election /resources/election --id master-2 \\
        --advertise 192.168.0.107:9091 --endpoints http://127.0.0.1:2379
    """
    return _run(given(arguments), ())


@click.command("exec", context_settings={"ignore_unknown_options": False})
@settings_options()
@click.argument("command", nargs=-1, required=True, metavar="-- CMD [ARG]...")
def exec_command(command: Sequence[str], **arguments: str | None) -> int:
    """Run CMD only while this candidate leads.

    CMD finds its term in the environment: LEADER_SIDECAR_LEADER_ID, LEADER_SIDECAR_TOKEN,
    LEADER_SIDECAR_KEY. On a step-down it gets SIGTERM, and SIGKILL before anybody else can lead;
    when it ends by itself, leadership is given back and its exit code is passed on.

    \b
    Example:
      leader-sidecar exec --election /jobs/report --id host-1 \\
        --endpoints http://127.0.0.1:2379 -- ./write-the-report
    """
    return _run(given(arguments), tuple(command))


@click.command("retire")
@click.option("--wait", is_flag=True, help="Return when the key has been given up.")
@click.option(
    "--status-dir",
    metavar="DIR",
    envvar="LEADER_SIDECAR_STATUS_DIR",
    default="/run/leader-sidecar",
    show_default=True,
    show_envvar=True,
    help="Where the sidecar keeps status.json.",
)
def retire_command(*, wait: bool, status_dir: str) -> int:
    """Step down in order and never stand again, as in a pod's preStop.

    Without --wait it returns when the outputs say follower. The sidecar itself ends on SIGTERM;
    until then it goes on answering, as a follower.

    Exit codes: 0 done; 1 no sidecar runs there, or the key is left to end with its lease; 2 usage.

    \b
    Example:
      leader-sidecar retire --wait
    """
    return retire(status_dir, wait=wait)


def _run(texts: dict[str, str], command: tuple[str, ...]) -> int:
    # In this order: settings, lock, guard, and only then grpc, which starts threads.
    from sidecar.settings import Settings  # noqa: PLC0415 - --help need not wait for it

    settings = Settings.read(texts)
    from sidecar.outputs.logs import configure  # noqa: PLC0415
    from sidecar.outputs.status_dir import StatusDirectory  # noqa: PLC0415

    configure(settings.log_format, settings.log_level)
    for warning in settings.warnings:
        log.warning("%s", warning)
    try:
        directory = StatusDirectory(settings.status_dir)
        # A command of a predecessor holds the lock until it is dead, which it is in a moment.
        lock = directory.lock(within=_PREDECESSOR if command else _READER)
    except ConfigError as problem:
        raise _with_others(problem, settings) from problem
    guard = None
    if command:
        from sidecar.guard import spawn_guard  # noqa: PLC0415

        guard = spawn_guard(keep_open=[lock])
    from sidecar import app  # noqa: PLC0415

    try:
        return app.run(settings, directory, app.Command(command, guard) if guard else None)
    except ConfigError as problem:
        raise _with_others(problem, settings) from problem
    except BaseExceptionGroup as group:
        inner = _first_config_error(group)
        if inner is None:
            raise
        raise inner from group


def _with_others(problem: ConfigError, settings: Settings) -> ConfigError:
    """Return the problem together with whatever else would end the next start, too."""
    from sidecar import app  # noqa: PLC0415 - it loads grpc, and the guard comes before that
    from sidecar.forward.listener import bind as listen_for  # noqa: PLC0415
    from sidecar.outputs.http import bind  # noqa: PLC0415

    found = list(problem.problems)

    def try_forwarding() -> None:
        for listening in listen_for(settings.forward):
            listening.close()

    for attempt in (
        lambda: app.store(settings.store),
        lambda: bind(settings.http.host, settings.http.port).close(),
        try_forwarding,
    ):
        try:
            attempt()
        except ConfigError as exc:
            found += [one for one in exc.problems if one not in found]
    return ConfigError(found)


def _first_config_error(group: BaseExceptionGroup[BaseException]) -> ConfigError | None:
    for exc in group.exceptions:
        found = _first_config_error(exc) if isinstance(exc, BaseExceptionGroup) else exc
        if isinstance(found, ConfigError):
            return found
    return None
