"""What etcd says of one election, at one moment. Pure."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.addresses import host_of
from sidecar.core.codec import TermRecord
from sidecar.core.queue import Entry, QueueReplica
from sidecar.kube.marks import LEADER
from sidecar.operator.facts import Pod


@dataclass(frozen=True, slots=True)
class View:
    """One look at the replica of a queue.

    Attributes:
        is_known: whether there is a replica at all yet.
        revision: the store's, up to which every candidate's key is known.
        trouble: why the store does not answer, or "".
        entries: the queue, first first; also in a pause.
        has_pin: somebody commanded who leads.
        history: the last terms, the newest first.
    """

    is_known: bool = False
    revision: int = 0
    trouble: str = ""
    entries: tuple[Entry, ...] = ()
    is_paused: bool = False
    has_pin: bool = False
    history: tuple[TermRecord, ...] = ()

    @property
    def leader(self) -> Entry | None:
        """Who leads, or None: nobody stands, or the election is paused."""
        return self.entries[0] if self.entries and not self.is_paused else None

    @property
    def token(self) -> int:
        """The fencing token of the term that runs, or 0."""
        leader = self.leader
        return leader.token if leader is not None else 0

    def term(self, token: int) -> TermRecord | None:
        """Return what the history says of a term."""
        return next((record for record in self.history if record.token == token), None)

    def is_older_than(self, term: int) -> bool:
        """Whether a term is newer than all that is known here: then we are late, not it.

        A token is the revision that created the leader's key, so up to `revision` none is missing.
        """
        return term > self.revision


def look(replica: QueueReplica, trouble: str, *, terms: int = 10) -> View:
    """Return what the replica shows now."""
    if not replica.is_synced:
        return View(trouble=trouble)
    newest = sorted(replica.history, reverse=True)[:terms]
    return View(
        is_known=True,
        revision=replica.revision,
        trouble=trouble,
        entries=replica.entries,
        is_paused=replica.is_paused,
        has_pin=replica.pin is not None,
        history=tuple(replica.history[token] for token in newest),
    )


def pods_of(view: View, pods: Sequence[Pod]) -> Mapping[bytes, Pod]:
    """Return the pod behind each candidate's key: the one of its id, else of its address.

    A pod that was made anew is never taken for its predecessor, whose key outlives it by a TTL, or
    for as long as its node reaches etcd and not the API server. Names and addresses come back; so
    all that is known has to fit, and a key that is in doubt has no pod.
    """
    by_name = {pod.name: pod for pod in pods}
    standing = {entry.proposal.id for entry in view.entries}
    by_ip: dict[_Ip, list[Pod]] = {}
    for pod in pods:
        if pod.name not in standing and not pod.has_ended:
            for own in _ips(pod.addresses):
                by_ip.setdefault(own, []).append(pod)
    newest = _newest(view.entries)
    found: dict[bytes, Pod] = {}
    for entry in view.entries:
        id_, ip = entry.proposal.id, _ip_of(entry)
        if newest[id_, ip] != entry.token:
            continue
        named = by_name.get(id_)
        if named is not None:
            fitting = [named] if _is_at(named, ip) or _says_so(named, entry) else []
        else:
            fitting = by_ip.get(ip, []) if ip is not None else []
        # Pods in their node's network share its addresses, so two of them cannot be told apart.
        if len(fitting) == 1 and not _is_younger(fitting[0], view, entry):
            found[entry.key] = fitting[0]
    return found


def pod_of_leader(view: View, pods: Sequence[Pod]) -> Pod | None:
    """Return the pod behind the leader's key, or None: nobody leads, or none is known to be it."""
    return None if view.leader is None else pods_of(view, pods).get(view.leader.key)


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _newest(entries: Sequence[Entry]) -> Mapping[tuple[str, _Ip | None], int]:
    """Return the youngest key's token by id and address: of two keys it is the successor's.

    Without an address, a key gives way to every younger one of its id.
    """
    found: dict[tuple[str, _Ip | None], int] = {}
    for entry in entries:
        found[entry.proposal.id, _ip_of(entry)] = found[entry.proposal.id, None] = entry.token
    return found


def _is_at(pod: Pod, ip: _Ip | None) -> bool:
    """Whether a pod may be reached at an address; None: at a name, which may lead anywhere."""
    return ip is None or ip in _ips(pod.addresses) or ip in _ips(pod.hosts)


def _says_so(pod: Pod, entry: Entry) -> bool:
    """Whether a pod shows that it leads this very term: a pod made anew shows nothing."""
    return pod.marks.role == LEADER and pod.marks.term == entry.token


def _is_younger(pod: Pod, view: View, entry: Entry) -> bool:
    """Whether a pod was started when the candidate's term had begun: then another one leads.

    Both times are by the clock of one node, if the pod is the leader's: nothing depends on two
    machines' clocks where it would be wrong to say so.
    """
    term = view.term(entry.token)
    return term is not None and pod.started_at > term.since and not _says_so(pod, entry)


def _ip_of(entry: Entry) -> _Ip | None:
    return _ip(host_of(entry.proposal.address))


def _ips(addresses: Sequence[str]) -> set[_Ip]:
    return {ip for ip in map(_ip, addresses) if ip is not None}


@functools.lru_cache(maxsize=4096)
def _ip(text: str) -> _Ip | None:
    """Return an address, however it is spelled; None for a host name, or nothing."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found
