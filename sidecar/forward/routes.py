"""Where a connection goes now, and when the term that it was made in is over. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from sidecar.addresses import host_of
from sidecar.core.lease import NEVER
from sidecar.core.state import ElectionState, Leader, Link, Role

LOOPBACK, LOOPBACK6 = "127.0.0.1", "::1"


@dataclass(frozen=True, slots=True)
class Route:
    """The way to the leader of one term.

    Attributes:
        token: the term's fencing token.
        is_local: whether it leads to the program beside this sidecar.
        hosts: where to try, in this order.
    """

    token: int
    is_local: bool
    hosts: tuple[str, ...]


def route(state: ElectionState, now: float, own_host: str) -> Route | None:
    """Return the way to who leads at `now` (CLOCK_BOOTTIME), or None: nobody does, for all we know.

    Whether *we* lead is asked of the clock. That the queue says so is not enough: while we step
    down, or do not act yet, connections wait for who acts next.
    """
    if state.is_leader(now):
        return Route(state.token, is_local=True, hosts=_local(own_host))
    state = state.at(now)
    leader = state.leader
    host = host_of(leader.address) if leader is not None else ""
    if leader is None or not host or _is_own(leader, host, state.id, own_host):
        return None
    return Route(leader.token, is_local=False, hosts=(host,))


def _is_own(leader: Leader, host: str, own_id: str, own_host: str) -> bool:
    """Whether the leader's key is an own one: of now, or of a lease or a process before.

    The id alone says it not: a pod may be recreated while its old node, cut off, goes on with it.
    """
    return leader.id == own_id and host == own_host


def _local(own_host: str) -> tuple[str, ...]:
    """Return where the own program may listen: on the loopback interface, else as others see it.

    An advertised loopback address (several candidates on one machine) tells it exactly.
    """
    if own_host.startswith("127.") or own_host == LOOPBACK6:
        return (own_host,)
    return (LOOPBACK6 if ":" in own_host else LOOPBACK, own_host)


@dataclass(slots=True)
class Term:
    """A term in which connections were made; `over_at` is when it ended, or ends at the latest."""

    token: int
    is_local: bool
    over_at: float = math.inf


class Terms:
    """The terms that have connections, and until when each may keep them.

    Args:
        drain: seconds for which connections outlive their term.
    """

    def __init__(self, drain: float) -> None:
        self._drain = drain
        self._terms: dict[tuple[int, bool], Term] = {}

    def open(self, route: Route, state: ElectionState, now: float) -> Term:
        """Return the term of a route that was just taken."""
        key = (route.token, route.is_local)
        term = self._terms.get(key)
        if term is None:
            term = self._terms[key] = Term(*key)
            _look(term, state, now)
        return term

    def look(self, state: ElectionState, now: float) -> None:
        """Take in a new state."""
        for term in self._terms.values():
            _look(term, state, now)

    def ended(self, now: float) -> Iterable[Term]:
        """Forget and return the terms whose connections have to go now."""
        ended = [term for term in self._terms.values() if now >= term.over_at + self._drain]
        for term in ended:
            del self._terms[term.token, term.is_local]
        return ended

    @property
    def next_end(self) -> float:
        """When `ended` will have something to say, if nothing else happens."""
        return min((term.over_at for term in self._terms.values()), default=math.inf) + self._drain


def _look(term: Term, state: ElectionState, now: float) -> None:
    leader = state.at(now).leader
    is_first = leader is not None and leader.token == term.token
    is_known = state.at(now).link is Link.CONNECTED
    if term.is_local and state.role is Role.LEADER and state.token == term.token:
        term.over_at = state.deadline  # which every renewal moves on
    elif is_known and is_first and term.is_local and state.kept_until > NEVER:
        # Stepped down from, and the key not yet given up: what is still connected is the work in
        # hand that --drain is for. But only for as long as nobody else can act, which each renewal
        # moves on: a frozen process, or a key that was asked to go, is not waited for by others.
        term.over_at = state.kept_until
    elif is_known and is_first and not term.is_local:
        term.over_at = math.inf
    elif is_known or term.is_local:
        term.over_at = min(term.over_at, now)
    # Else the store is out of reach for us. That says nothing about a leader elsewhere.
