"""`Admin`: one etcd member as its administrators see it, beside what an election needs of it.

Members of a cluster, users and roles, defragmentation. Requests that need root carry its
certificate or its token, as `Member` does for every call.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from sidecar.errors import NotAuthenticated, Unavailable
from sidecar.etcd import admin_pb2 as pb
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import Address, Endpoint, resolve
from sidecar.etcd.member import Member

T = TypeVar("T")
R = TypeVar("R", bound=Message)

_TRY = 3.0  # seconds for one member's answer


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """One entry of a cluster's list of members.

    Attributes:
        name: "" for one that was added and has not started yet.
        client_urls: empty for one that has never started.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool

    @property
    def has_started(self) -> bool:
        """Whether it has ever told the others where its clients reach it."""
        return bool(self.client_urls)


@dataclass(frozen=True, slots=True)
class MemberList:
    """The members of a cluster, as one of them knows them."""

    cluster_id: int
    members: tuple[MemberInfo, ...]


@dataclass(frozen=True, slots=True)
class StoreSize:
    """A member's database: bytes on disk, bytes of them in use; and whether it leads."""

    on_disk: int
    in_use: int
    is_leader: bool


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """The right to read and write [key, end); end "" is the one key alone."""

    key: bytes
    end: bytes = b""
    is_read_only: bool = False


class Admin(Member):
    """A connection to one member; unusable after `close`."""

    async def members(self, *, linearizable: bool = True) -> MemberList:
        """List the members; not linearizable: as this one knows them, also without a quorum."""
        request = pb.MemberListRequest(linearizable=linearizable)
        reply = await self._ask("Cluster/MemberList", request, pb.MemberListResponse)
        return MemberList(reply.header.cluster_id, tuple(_info(m) for m in reply.members))

    async def add_learner(self, peer_url: str) -> int:
        """Add a member that does not vote yet; return its id."""
        request = pb.MemberAddRequest(peerURLs=[peer_url], isLearner=True)
        reply = await self._ask("Cluster/MemberAdd", request, pb.MemberAddResponse)
        return reply.member.ID

    async def promote(self, member: int) -> None:
        """Let a learner vote."""
        await self._ask("Cluster/MemberPromote", pb.MemberRequest(ID=member), pb.Done)

    async def remove(self, member: int) -> None:
        """Take a member out of the cluster, for ever."""
        await self._ask("Cluster/MemberRemove", pb.MemberRequest(ID=member), pb.Done)

    async def size(self) -> StoreSize:
        """Return how large the database is."""
        reply = await self._ask("Maintenance/Status", pb.StatusRequest(), pb.StatusResponse)
        return StoreSize(reply.dbSize, reply.dbSizeInUse, reply.leader == reply.header.member_id)

    async def defragment(self) -> None:
        """Give unused space back; the member answers nobody meanwhile."""
        await self._ask("Maintenance/Defragment", pb.DefragmentRequest(), pb.Done)

    async def is_auth_on(self) -> bool:
        """Whether etcd asks its clients who they are."""
        reply = await self._ask("Auth/AuthStatus", pb.EmptyRequest(), pb.AuthStatusResponse)
        return reply.enabled

    async def enable_auth(self) -> None:
        """Have etcd ask its clients who they are; needs a user root with the role root."""
        await self._ask("Auth/AuthEnable", pb.EmptyRequest(), pb.Done)

    async def users(self) -> tuple[str, ...]:
        """Return the names of all users."""
        reply = await self._ask("Auth/UserList", pb.EmptyRequest(), pb.UserListResponse)
        return tuple(reply.users)

    async def roles_of(self, user: str) -> frozenset[str]:
        """Return the roles that a user has."""
        reply = await self._ask("Auth/UserGet", pb.NameRequest(name=user), pb.RolesResponse)
        return frozenset(reply.roles)

    async def roles(self) -> tuple[str, ...]:
        """Return the names of all roles."""
        reply = await self._ask("Auth/RoleList", pb.EmptyRequest(), pb.RolesResponse)
        return tuple(reply.roles)

    async def grants_of(self, role: str) -> frozenset[Grant]:
        """Return what a role may do."""
        reply = await self._ask("Auth/RoleGet", pb.NameRequest(name=role), pb.RoleGetResponse)
        read = pb.Permission.READ
        return frozenset(Grant(p.key, p.range_end, p.permType == read) for p in reply.perm)

    async def takes_password(self, user: str, password: str) -> bool:
        """Whether this is the user's password; only while authentication is on."""
        other = Admin(self.address, Credentials(user, password, *self._certificates()))
        try:
            await other.log_in()
        except NotAuthenticated:
            return False
        finally:
            await other.close()
        return True

    async def log_in(self) -> None:
        """Get a token for the user of the credentials.

        Raises:
            NotAuthenticated: the user or the password is wrong.
        """
        await self._authenticate(self._token)

    async def add_user(self, name: str, password: str) -> None:
        """Add a user; without a password only a certificate of that common name opens."""
        options = pb.UserAddOptions(no_password=not password)
        request = pb.UserAddRequest(name=name, password=password, options=options)
        await self._ask("Auth/UserAdd", request, pb.Done)

    async def change_password(self, name: str, password: str) -> None:
        """Give a user another password."""
        request = pb.PasswordRequest(name=name, password=password)
        await self._ask("Auth/UserChangePassword", request, pb.Done)

    async def add_role(self, name: str) -> None:
        """Add a role that may do nothing yet."""
        await self._ask("Auth/RoleAdd", pb.NameRequest(name=name), pb.Done)

    async def grant_role(self, user: str, role: str) -> None:
        """Give a user a role."""
        request = pb.UserRoleRequest(user=user, role=role)
        await self._ask("Auth/UserGrantRole", request, pb.Done)

    async def allow(self, role: str, grant: Grant) -> None:
        """Let a role read and write a range; it replaces what was granted for the same range."""
        kind = pb.Permission.READ if grant.is_read_only else pb.Permission.READWRITE
        permission = pb.Permission(permType=kind, key=grant.key, range_end=grant.end)
        request = pb.GrantRequest(name=role, perm=permission)
        await self._ask("Auth/RoleGrantPermission", request, pb.Done)

    async def forbid(self, role: str, grant: Grant) -> None:
        """Take back what was granted for a range."""
        request = pb.RevokeRequest(role=role, key=grant.key, range_end=grant.end)
        await self._ask("Auth/RoleRevokePermission", request, pb.Done)

    def _certificates(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        mine = self._credentials
        return mine.cacert, mine.cert, mine.key

    async def _ask(self, name: str, request: Message, reply: type[R]) -> R:
        method: Callable[..., Awaitable[R]] = self._channel.unary_unary(
            f"/etcdserverpb.{name}", _serialize, reply.FromString
        )
        return await self._call(method, request)


@asynccontextmanager
async def administering(
    endpoints: Sequence[Endpoint], credentials: Credentials
) -> AsyncIterator[Cluster]:
    """Open a way to whichever member answers."""
    cluster = Cluster(tuple(endpoints), credentials)
    try:
        yield cluster
    finally:
        await cluster.close()


class Cluster:
    """All members behind some endpoints; names are looked up anew for every question."""

    def __init__(self, endpoints: tuple[Endpoint, ...], credentials: Credentials) -> None:
        self._endpoints = endpoints
        self._credentials = credentials
        self._open: dict[Address, Admin] = {}

    async def close(self) -> None:
        """Close every connection."""
        for admin in self._open.values():
            await admin.close()
        self._open.clear()

    async def ask(self, question: Callable[[Admin], Awaitable[T]], *, within: float = _TRY) -> T:
        """Ask one member after the other until one answers; refusals are answers.

        Raises:
            Unavailable: none has answered, each given `within` seconds; says why of the last.
        """
        addresses = await resolve(self._endpoints)
        last = Unavailable("no name of the endpoints has an address")
        for address in addresses:
            admin = self._open.get(address)
            if admin is None:
                admin = self._open[address] = Admin(address, self._credentials)
            try:
                async with asyncio.timeout(within):
                    return await question(admin)
            except Unavailable as exc:
                last = Unavailable(f"{address}: {exc}")
            except TimeoutError:
                last = Unavailable(f"{address} did not answer within {within:g} s")
            await self._open.pop(address).close()
        raise last


def _info(member: pb.Member) -> MemberInfo:
    return MemberInfo(
        member.ID,
        member.name,
        tuple(member.peerURLs),
        tuple(member.clientURLs),
        member.isLearner,
    )


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()
