"""Giving the space back that an etcd's members no longer use: one member at a time, leader last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from sidecar.cluster.membership import Patience
from sidecar.etcd.admin import Admin, Cluster, MemberInfo, StoreSize, administering
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import Endpoint, parse_endpoints

_TAKES = 60.0
"""Seconds for one member: it answers nobody meanwhile, and a large database takes its time."""


def order(sizes: Sequence[tuple[MemberInfo, StoreSize]], wasted: float) -> tuple[MemberInfo, ...]:
    """Return the members of which at least this share (0 to 1) is unused, the leader last."""
    due = [
        (size.is_leader, member)
        for member, size in sizes
        if size.on_disk and 1 - size.in_use / size.on_disk >= wasted
    ]
    return tuple(member for _, member in sorted(due, key=lambda pair: pair[0]))


async def defragment(
    cluster: Cluster,
    credentials: Credentials,
    patience: Patience,
    *,
    wasted: float,
    say: Callable[[str], None],
) -> int:
    """Defragment the members that waste at least this share; return how many.

    Raises:
        Refused: a member, or the quorum, was not there; the rest is left as it is.
    """
    listed = await patience.until(partial(cluster.ask, Admin.members))
    sizes = []
    for member in listed.members:
        async with administering(_endpoints(member), credentials) as one:
            size = await patience.until(partial(one.ask, Admin.size))
        sizes.append((member, size))
    due = order(sizes, wasted)
    for member in due:
        async with administering(_endpoints(member), credentials) as one:
            await one.ask(Admin.defragment, within=_TAKES)
            after = await patience.until(partial(one.ask, Admin.size))
        # The next one only once a quorum answers again.
        await patience.until(partial(cluster.ask, Admin.members))
        say(f"defragmented {member.name}: {after.on_disk} bytes on disk")
    return len(due)


def _endpoints(member: MemberInfo) -> tuple[Endpoint, ...]:
    return parse_endpoints(",".join(member.client_urls))
