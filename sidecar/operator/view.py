"""What etcd says of one election, at one moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sidecar.addresses import host_of
from sidecar.core.codec import TermRecord
from sidecar.core.queue import Entry, QueueReplica
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


def pods_of(entries: Sequence[Entry], pods: Sequence[Pod]) -> Mapping[bytes, Pod]:
    """Return the pod behind each candidate's key: by its id, else by its address."""
    by_name = {pod.name: pod for pod in pods}
    by_address = {address: pod for pod in pods for address in pod.addresses}
    found: dict[bytes, Pod] = {}
    for entry in entries:
        pod = by_name.get(entry.proposal.id) or by_address.get(host_of(entry.proposal.address))
        if pod is not None:
            found[entry.key] = pod
    return found
