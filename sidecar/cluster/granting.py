"""Users and roles of a running etcd: reads first, writes only what differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sidecar.cluster import rights
from sidecar.cluster.rights import ROOT, Change, Rights, User
from sidecar.errors import ConfigError
from sidecar.etcd.admin import Admin, Grant


def read_users(path: Path) -> tuple[User, ...]:
    """Read the users that there shall be, root among them.

    The file is JSON: `{"users": [{"name": ..., "passwordFile": ..., "elections": [...],
    "readWrite": [...], "read": [...]}]}`, the last two of prefixes. root needs no rights.

    Raises:
        ConfigError: with all problems.
    """
    problems: list[str] = []
    try:
        given = json.loads(path.read_text())["users"]
        users = tuple(_user(each, problems) for each in given)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        problem = f"--users: cannot read {str(path)!r}: {type(exc).__name__}: {exc}"
        raise ConfigError([problem]) from exc
    if ROOT not in {user.name for user in users}:
        problems.append("--users: there is no user root, without whom nobody could manage etcd")
    if problems:
        raise ConfigError(problems)
    return users


def _user(given: Mapping[str, Any], problems: list[str]) -> User:
    name = given["name"]
    password = ""
    if given.get("passwordFile"):
        path = Path(given["passwordFile"])
        try:
            password = path.read_text().rstrip("\r\n")
        except OSError as exc:
            problems.append(f"--users: {name}: cannot read {str(path)!r}: {exc.strerror}")
        else:
            if not password:
                problems.append(f"--users: {name}: {str(path)!r} is empty; give a password")
    grants: list[Grant] = []
    for election in given.get("elections", []):
        try:
            grants.append(rights.election_grant(election))
        except ValueError as exc:
            problems.append(f"--users: {name}: {exc}")
    grants += [rights.prefix_grant(prefix) for prefix in given.get("readWrite", [])]
    grants += [rights.prefix_grant(prefix, is_read_only=True) for prefix in given.get("read", [])]
    return User(name, frozenset(grants), password)


async def apply(
    admin: Admin, wanted: tuple[User, ...], say: Callable[[str], None]
) -> tuple[Change, ...]:
    """Bring users and roles to what is wanted; return what was written.

    Raises:
        CoordinatorError: etcd did not answer, or refused; a further run goes on from there.
    """
    found = await look(admin, wanted)
    made = rights.changes(wanted, found)
    for change in made:
        await _write(admin, change)
        say(str(change))
    return made


async def look(admin: Admin, wanted: tuple[User, ...]) -> Rights:
    """Return what etcd knows of users and roles."""
    is_on = await admin.is_auth_on()
    users = {name: await admin.roles_of(name) for name in await admin.users()}
    names = {user.name for user in wanted}
    roles = {
        role: await admin.grants_of(role) if role in names and role != ROOT else frozenset[Grant]()
        for role in await admin.roles()
    }
    wrong = [
        user.name
        for user in wanted
        if is_on
        and user.password
        and user.name in users
        and not await admin.takes_password(user.name, user.password)
    ]
    return Rights(users, roles, is_on, frozenset(wrong))


async def _write(admin: Admin, change: Change) -> None:
    match change:
        case rights.AddRole(role):
            await admin.add_role(role)
        case rights.Allow(role, grant):
            await admin.allow(role, grant)
        case rights.Forbid(role, grant):
            await admin.forbid(role, grant)
        case rights.AddUser(user):
            await admin.add_user(user.name, user.password)
        case rights.ChangePassword(user):
            await admin.change_password(user.name, user.password)
        case rights.GiveRole(user, role):
            await admin.grant_role(user, role)
        case rights.Enable():
            await admin.enable_auth()
