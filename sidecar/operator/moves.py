"""When the leader is asked to hand over, and to whom. Pure.

The operator's own gain is the choice of the target: a candidate that stays, on a node that takes
pods, so that draining several nodes changes the leader once and not once per node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sidecar.core.queue import Entry
from sidecar.operator.facts import Node, Pod, read_time
from sidecar.operator.spec import Election, Preferred, Window
from sidecar.operator.view import View, pod_of_leader, pods_of

COMMAND, CORDON, PREFERRED, LONGEST_TERM, EVICTION = (
    "HandoverTo",
    "NodeCordoned",
    "Preferred",
    "MaxTermDuration",
    "Eviction",
)
SETTLED = 10.0
"""Seconds that a candidate must have stood before preference or age move the leader to it."""

BETWEEN = 60.0
"""Seconds between two moves by preference."""

TOGETHER = 0.5
"""Seconds without another cordon after which the leader moves off a node: a drain of several nodes
begins with all their cordons, and the eviction of its pod is held until it has moved."""

LOOK_AGAIN = 5.0
"""Seconds until time alone may have made a move due."""

_DAY = 86400.0
_WEEK = 7


@dataclass(frozen=True, slots=True)
class Scene:
    """All that a move is decided by.

    Attributes:
        nodes: by name; None where nodes may not be read (namespaced mode).
        closing: seconds for which further cordons are waited for yet.
        settled: (key, token) of candidates that have stood for `SETTLED` seconds.
        lasted: seconds for which the term has run by the operator's own clock, where it saw it
            begin, else None.
        last: the last move, as in the status.
    """

    election: Election
    view: View
    pods: Sequence[Pod]
    nodes: Mapping[str, Node] | None = None
    closing: float = 0.0
    settled: Collection[tuple[bytes, int]] = ()
    lasted: float | None = None
    last: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A handover to ask for: of the term `token`, to `target`, because of `reason`."""

    reason: str
    token: int
    target: Entry


@dataclass(frozen=True, slots=True)
class NoMove:
    """A move that is wanted and cannot be, or need not (`is_done`): why."""

    reason: str
    token: int
    message: str
    is_done: bool = False


Wanted = Move | NoMove | None


def wanted_move(scene: Scene, now: float) -> Wanted:
    """Return the move that is due at `now` (wall clock, seconds since 1970), if any."""
    view = scene.view
    leader = view.leader
    if not view.is_known or view.trouble or leader is None:
        return _cannot_obey(scene)
    if leader.proposal.is_foreign:
        return _cannot_obey(scene)
    for decide in (_commanded, _off_a_closed_node, _to_the_preferred, _after_the_longest_term):
        wanted = decide(scene, leader, now)
        if wanted is not None:
            return wanted
    return None


def target(
    scene: Scene, *, but_not: Collection[str] = (), only_settled: bool = False
) -> Entry | None:
    """Return the best candidate to lead next, or None: one that stays, the preferred first.

    Args:
        scene: what there is.
        but_not: names of nodes and uids of pods that are about to go.
        only_settled: whether it must have stood for a while.
    """
    pods = pods_of(scene.view, scene.pods)
    preferred = scene.election.preferred
    ranked: list[tuple[tuple[bool, bool, int], Entry]] = []
    for entry in _reachable(scene.view):
        pod = pods.get(entry.key)
        if pod is not None and (_goes(scene, pod) or {pod.uid, pod.node} & set(but_not)):
            continue
        if only_settled and (entry.key, entry.token) not in scene.settled:
            continue
        rank = (
            not _is_preferred(preferred, entry, pod, scene.nodes),
            pod is None or not pod.is_ready,
            -(entry.proposal.priority or 0),
        )
        ranked.append((rank, entry))
    # Of equals the first in the queue: nobody has to be moved for it.
    return min(ranked, key=lambda pair: pair[0])[1] if ranked else None


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether one of the windows is open at `now`; True where there are none."""
    if not windows:
        return True
    today = int(now // _DAY)
    for window in windows:
        for day in range(today - _WEEK, today + 1):
            # 1 January 1970 was a Thursday.
            begins = day * _DAY + window.start
            if (day + 3) % _WEEK in window.days and begins <= now < begins + window.seconds:
                return True
    return False


def look_again(scene: Scene) -> float | None:
    """Return after how many seconds time alone may have made a move due, or None for never."""
    election, leader = scene.election, scene.view.leader
    if leader is None:
        return None
    pod = pod_of_leader(scene.view, scene.pods)
    is_closed = pod is not None and _is_closed(scene, pod)
    if is_closed and scene.closing:
        return scene.closing
    is_awaited = election.preferred != Preferred() or election.longest_term is not None
    return LOOK_AGAIN if is_awaited or is_closed else None


def last_of(
    own: Mapping[str, Any] | None, told: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Return the last move: our own, or the one in the status, if any replica made it later.

    What is done before an eviction is done by whichever replica was asked, and told in the status.
    Terms tell the order; clocks do where both were asked of the same one.
    """
    if told is None or told.get("reason") != EVICTION:
        return own
    return told if own is None or _moment(told) >= _moment(own) else own


def _moment(move: Mapping[str, Any]) -> tuple[int, str]:
    return int(move.get("token") or 0), str(move.get("at", ""))


# --- the reasons -----------------------------------------------------------------------------


def _cannot_obey(scene: Scene) -> Wanted:
    view = scene.view
    if not scene.election.handover_to or not view.is_known or view.trouble:
        return None
    leader = view.leader
    if leader is not None:
        said = f"{leader.proposal.id!r} leads and was put by another program, which knows no"
        return NoMove(COMMAND, leader.token, f"{said} commands")
    why = "the election is paused" if view.is_paused else "nobody leads"
    return NoMove(COMMAND, 0, f"{why}, so nobody can hand over")


def _commanded(scene: Scene, leader: Entry, now: float) -> Wanted:
    del now
    to = scene.election.handover_to
    if not to:
        return None
    entries = scene.view.entries
    found = [e for e in entries if to == e.key.decode(errors="replace")]
    found = found or [e for e in entries if to == e.proposal.id]
    if not found:
        standing = ", ".join(e.proposal.id for e in entries[1:]) or "nobody"
        return NoMove(COMMAND, leader.token, f"no candidate {to!r} stands; waiting: {standing}")
    if len(found) > 1:
        keys = ", ".join(e.key.decode(errors="replace") for e in found)
        said = f"{to!r} stands more than once; name one of the keys: {keys}"
        return NoMove(COMMAND, leader.token, said)
    if leader in found:
        return NoMove(COMMAND, leader.token, f"{to!r} leads already", is_done=True)
    return Move(COMMAND, leader.token, found[0])


def _off_a_closed_node(scene: Scene, leader: Entry, now: float) -> Wanted:
    del now
    pod = pod_of_leader(scene.view, scene.pods)
    if pod is None or not _is_closed(scene, pod) or scene.closing:
        return None
    found = target(scene)
    if found is None:
        return NoMove(CORDON, leader.token, f"node {pod.node} is cordoned, and nobody else stays")
    return Move(CORDON, leader.token, found)


def _to_the_preferred(scene: Scene, leader: Entry, now: float) -> Wanted:
    preferred = scene.election.preferred
    pods = pods_of(scene.view, scene.pods)
    if preferred == Preferred() or _is_preferred(
        preferred, leader, pods.get(leader.key), scene.nodes
    ):
        return None
    if (
        _was_moved_within(scene, PREFERRED, BETWEEN, now)
        or _is_commanded(scene, leader)
        or not is_open(scene.election.windows, now)
    ):
        return None
    found = target(scene, only_settled=True)
    if found is None or not _is_preferred(preferred, found, pods.get(found.key), scene.nodes):
        return None
    return Move(PREFERRED, leader.token, found)


def _after_the_longest_term(scene: Scene, leader: Entry, now: float) -> Wanted:
    longest, preferred = scene.election.longest_term, scene.election.preferred
    if longest is None or not _has_lasted(scene, leader, longest, now):
        return None
    if not is_open(scene.election.windows, now):
        return None
    found = target(scene, only_settled=True)
    if found is None:
        return None
    pods = pods_of(scene.view, scene.pods)
    loses, gains = (
        _is_preferred(preferred, each, pods.get(each.key), scene.nodes) for each in (leader, found)
    )
    # It would be moved back as soon as preference looks again.
    return None if loses and not gains else Move(LONGEST_TERM, leader.token, found)


# --- parts -----------------------------------------------------------------------------------


def _reachable(view: View) -> list[Entry]:
    """Return the waiters that a handover can reach: never past another program's key."""
    found: list[Entry] = []
    for entry in view.entries[1:]:
        if entry.proposal.is_foreign:
            break
        found.append(entry)
    return found


def _is_closed(scene: Scene, pod: Pod) -> bool:
    node = (scene.nodes or {}).get(pod.node)
    return node is not None and node.is_closed


def _goes(scene: Scene, pod: Pod) -> bool:
    return pod.is_leaving or _is_closed(scene, pod)


def _is_preferred(
    preferred: Preferred, entry: Entry, pod: Pod | None, nodes: Mapping[str, Node] | None
) -> bool:
    if preferred.candidate:
        return entry.proposal.id == preferred.candidate
    if pod is None:
        return False
    node = (nodes or {}).get(pod.node)
    return preferred.pods.matches(pod.labels) or (
        node is not None and preferred.nodes.matches(node.labels)
    )


def _has_lasted(scene: Scene, leader: Entry, longest: float, now: float) -> bool:
    """Whether the term has lasted for `longest` seconds.

    By one clock where we saw it begin: a wall clock of ours that goes ahead makes every term an old
    one. Else by two, and never sooner after the last such move than a term is long.
    """
    if scene.lasted is not None:
        return scene.lasted >= longest
    record = scene.view.term(leader.token)
    if record is None or now < record.since + longest:
        return False
    return not _was_moved_within(scene, LONGEST_TERM, longest, now)


def _was_moved_within(scene: Scene, reason: str, seconds: float, now: float) -> bool:
    """Whether the last move was for this reason, and not so long ago.

    One that lies ahead was told by a clock that was wrong, and says nothing.
    """
    at = read_time((scene.last or {}).get("at"))
    return _last_reason(scene) == reason and 0 <= now - at < seconds


def _last_reason(scene: Scene) -> str:
    return str((scene.last or {}).get("reason", ""))


def _is_commanded(scene: Scene, leader: Entry) -> bool:
    """Whether somebody, and not we by ourselves, has chosen the present leader."""
    if not scene.view.has_pin:
        return False
    last = scene.last or {}
    is_ours = last.get("to") == leader.proposal.id and last.get("result") == "Done"
    return not is_ours or _last_reason(scene) == COMMAND


class Settling:
    """Since when each candidate has stood, and who leads has led, as far as we saw it.

    Args:
        clock: gives seconds that run on.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since: dict[tuple[bytes, int], float] = {}
        self._token: int | None = None
        self._began_at: float | None = None

    def note(self, view: View) -> None:
        """Take in who stands now."""
        now = self._clock()
        if view.is_known and view.token != self._token:
            self._began_at = None if self._token is None else now
            self._token = view.token
        places = [(entry.key, entry.token) for entry in view.entries]
        self._since = {place: self._since.get(place, now) for place in places}

    def settled(self) -> frozenset[tuple[bytes, int]]:
        """Return who has stood for `SETTLED` seconds."""
        now = self._clock()
        return frozenset(p for p, since in self._since.items() if now >= since + SETTLED)

    def lasted(self) -> float | None:
        """Return for how many seconds the term has run, or None: we did not see it begin."""
        return None if self._began_at is None else self._clock() - self._began_at
