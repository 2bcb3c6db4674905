"""Whether an election's name collides with another election in the same store.

Every key below ``<election>/`` counts as a candidate, so an election whose name is a prefix of
another one's would see that one's keys in its queue. A rule for names cannot prevent it: who
comes second has to look.
"""

from __future__ import annotations

from sidecar.core.keys import Layout, parents
from sidecar.election.ports import Coordinator
from sidecar.errors import ConfigError, PermissionDenied

_READ_LIMIT = 5.0


async def check_name(coordinator: Coordinator, name: str) -> None:
    """Look for elections above and below this one.

    Raises:
        ConfigError: there is one; the sentence names it.
        Unavailable: no answer; ask again.
        Rejected: the store does not let us look; says what is needed.
    """
    layout = Layout(name)
    try:
        below = await coordinator.read(
            layout.candidates, layout.end, timeout=_READ_LIMIT, keys_only=True
        )
    except PermissionDenied as exc:
        raise PermissionDenied(f"{exc}; needed: {layout.grant_command}") from exc
    for kv in below.kvs:
        rest = kv.key.removeprefix(layout.candidates)
        if b"/" in rest:
            other = f"{name}/{_owner(rest).decode(errors='replace')}"
            raise ConfigError(
                [f"--election: {name!r} is a prefix of {other!r}, which is in use; use another"]
            )
    for parent in parents(name):
        if await _is_in_use(coordinator, Layout(parent)):
            raise ConfigError(
                [f"--election: {name!r} lies inside {parent!r}, which is in use; use another"]
            )


def _owner(key: bytes) -> bytes:
    """Return the name of the election that a key is of, as far as the key tells."""
    segments = key.split(b"/")[:-1]
    for n, segment in enumerate(segments):
        for own in (b".control", b".history"):
            if segment.endswith(own):
                return b"/".join([*segments[:n], segment.removesuffix(own)])
    return b"/".join(segments)


async def _is_in_use(coordinator: Coordinator, parent: Layout) -> bool:
    for first in (parent.start, parent.term(0).rsplit(b"/", 1)[0] + b"/"):
        end = first[:-1] + b"0"
        try:
            found = await coordinator.read(first, end, timeout=_READ_LIMIT, keys_only=True)
        except PermissionDenied:
            return False  # whoever may not look there cannot be disturbed from there by us
        if found.kvs:
            return True
    return False
