"""Users and roles of an etcd: pure. What differs between what there is and what there shall be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sidecar.core.keys import Layout
from sidecar.etcd.admin import Grant

ROOT = "root"


@dataclass(frozen=True, slots=True)
class User:
    """A user as it shall be: it gets one role, of its own name, with exactly these rights.

    Attributes:
        password: "" for one that is known by its certificate alone.
    """

    name: str
    grants: frozenset[Grant] = frozenset()
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Rights:
    """What an etcd knows of users and roles.

    Attributes:
        users: the roles of each.
        roles: what each may do.
        is_on: whether etcd asks its clients who they are.
        wrong_passwords: the users whose password is another one; known only while it is on.
    """

    users: Mapping[str, frozenset[str]]
    roles: Mapping[str, frozenset[Grant]]
    is_on: bool
    wrong_passwords: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AddRole:
    """Add a role that may do nothing yet."""

    role: str

    def __str__(self) -> str:
        return f"added the role {self.role}"


@dataclass(frozen=True, slots=True)
class Allow:
    """Let a role use a range."""

    role: str
    grant: Grant

    def __str__(self) -> str:
        way = "read" if self.grant.is_read_only else "read and write"
        return f"the role {self.role} may {way} {_range(self.grant)}"


@dataclass(frozen=True, slots=True)
class Forbid:
    """Take a range back from a role."""

    role: str
    grant: Grant

    def __str__(self) -> str:
        return f"the role {self.role} may no longer use {_range(self.grant)}"


@dataclass(frozen=True, slots=True)
class AddUser:
    """Add a user."""

    user: User

    def __str__(self) -> str:
        return f"added the user {self.user.name}"


@dataclass(frozen=True, slots=True)
class ChangePassword:
    """Give a user another password."""

    user: User

    def __str__(self) -> str:
        return f"changed the password of {self.user.name}"


@dataclass(frozen=True, slots=True)
class GiveRole:
    """Give a user a role."""

    user: str
    role: str

    def __str__(self) -> str:
        return f"gave the user {self.user} the role {self.role}"


@dataclass(frozen=True, slots=True)
class Enable:
    """Have etcd ask its clients who they are."""

    def __str__(self) -> str:
        return "switched authentication on"


Change = AddRole | Allow | Forbid | AddUser | ChangePassword | GiveRole | Enable


def changes(wanted: tuple[User, ...], found: Rights) -> tuple[Change, ...]:
    """Return what to write, in this order; nothing when all is as wanted.

    Users and roles of other names are left alone. To switch on comes last, when root is there.
    """
    made: list[Change] = []
    for user in wanted:
        made += _role_changes(user, found)
        made += _user_changes(user, found)
    if not found.is_on:
        made.append(Enable())
    return tuple(made)


def _role_changes(user: User, found: Rights) -> list[Change]:
    if user.name == ROOT and ROOT not in found.roles:
        return [AddRole(ROOT)]
    if user.name == ROOT:
        return []  # it may do everything, whatever is granted
    made: list[Change] = [] if user.name in found.roles else [AddRole(user.name)]
    has = found.roles.get(user.name, frozenset())
    # A range in another mode is replaced by the grant, so it is no leftover.
    kept = {(grant.key, grant.end) for grant in user.grants}
    made += [Forbid(user.name, g) for g in sorted(has) if (g.key, g.end) not in kept]
    made += [Allow(user.name, g) for g in sorted(user.grants - has)]
    return made


def _user_changes(user: User, found: Rights) -> list[Change]:
    made: list[Change] = []
    if user.name not in found.users:
        made.append(AddUser(user))
    elif user.name in found.wrong_passwords:
        made.append(ChangePassword(user))
    if user.name not in found.users.get(user.name, frozenset()):
        made.append(GiveRole(user.name, user.name))
    return made


def election_grant(election: str) -> Grant:
    """Return exactly the range that an election needs.

    Raises:
        ValueError: the name cannot be an election's.
    """
    layout = Layout(election)
    return Grant(layout.start, layout.end)


def prefix_grant(prefix: str, *, is_read_only: bool = False) -> Grant:
    """Return the range of all keys that begin with `prefix`, as etcd's own tools compute it."""
    key = prefix.encode()
    end = key.rstrip(b"\xff")
    return Grant(key, end[:-1] + bytes([end[-1] + 1]), is_read_only)


def _range(grant: Grant) -> str:
    return f"[{grant.key.decode(errors='replace')}, {grant.end.decode(errors='replace')})"
