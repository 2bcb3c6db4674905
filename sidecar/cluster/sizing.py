"""Members that come and go: pure, from the list of members and the number that there shall be."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

from sidecar.etcd.admin import MemberInfo


def ordinal(member: MemberInfo, stateful_set: str) -> int | None:
    """Return the ordinal of a member's pod, also of one that never started; None: not ours."""
    names = [
        member.name,
        *((urlsplit(url).hostname or "").split(".")[0] for url in member.peer_urls),
    ]
    pattern = re.compile(re.escape(stateful_set) + r"-(\d+)")
    found = (pattern.fullmatch(name) for name in names)
    return next((int(match[1]) for match in found if match), None)


def next_to_remove(
    members: Sequence[MemberInfo], stateful_set: str, replicas: int
) -> tuple[int, MemberInfo] | None:
    """Return the highest ordinal beyond `replicas` and its member, or None when there is none."""
    surplus = [
        (number, member)
        for member in members
        if (number := ordinal(member, stateful_set)) is not None and number >= replicas
    ]
    return max(surplus, key=lambda pair: pair[0]) if surplus else None


def own_learner(members: Sequence[MemberInfo], peer_url: str) -> MemberInfo | None:
    """Return the member at this URL while it does not vote, else None."""
    return next((m for m in members if peer_url in m.peer_urls and m.is_learner), None)
