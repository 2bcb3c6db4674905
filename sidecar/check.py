"""`leader-sidecar check` for the usual case, the local status directory, decided without click.

A probe runs it every second or so on a busy node, hence the few imports. It does not know the other
sources (`--url`, etcd): with any of their options it leaves the command to `sidecar.cli`.
"""

import os
import sys
from collections.abc import Sequence

from sidecar import boottime

ENVIRONMENT = "LEADER_SIDECAR_STATUS_DIR"
IS_LEADER, NOT_LEADER, USAGE_ERROR = 0, 1, 2
_OPTION = "--status-dir"

_REASONS = {
    None: "this candidate does not lead",
    "missing": "there is no status file; is the sidecar running, and is this its directory?",
    "unreadable": "the status file cannot be read",
    "too_large": f"the status file is larger than {boottime.STATUS_LIMIT} bytes",
    "malformed": "the status file is malformed",
    "unknown_version": "the status file is of a newer version than this program knows",
    "other_boot": "the status file was written before this machine was started",
    "other_time_namespace": "the status file was written in another time namespace",
    "expired": "the leadership in the status file has ended and was not renewed",
}


def quick_check(arguments: Sequence[str]) -> int | None:
    """Return the exit code of `check` with these arguments; None when click has to decide."""
    parsed = _parse(arguments)
    return None if parsed is None else _run(parsed)


def _parse(arguments: Sequence[str]) -> dict[str, str] | None:
    """Return the options given, or None when one is not ours."""
    parsed: dict[str, str] = {}
    left = list(arguments)
    while left:
        argument = left.pop(0)
        name, equals, value = argument.partition("=")
        if name == _OPTION:
            parsed[_OPTION] = value if equals or not left else left.pop(0)
        else:
            return None
    return parsed


def _run(parsed: dict[str, str]) -> int:
    directory = parsed.get(_OPTION, os.environ.get(ENVIRONMENT) or boottime.DEFAULT_STATUS_DIR)
    if not directory:
        sys.stderr.write(
            f"check: {_OPTION} needs a directory, e.g. {boottime.DEFAULT_STATUS_DIR}\n"
        )
        return USAGE_ERROR
    path = f"{directory}/{boottime.STATUS}"
    document, problem = boottime.read_status(path)
    if problem is None and document["role"] == "leader":
        return IS_LEADER
    sys.stderr.write(f"check: not leader: {_REASONS[problem]} ({path})\n")
    return NOT_LEADER
