"""The members of the fake cluster: which of them answers, what, and when its watches hear.

All members that take part share the one state of `FakeEtcd`, which is what linearizable means.
They differ in being reachable: down, paused, cut off from the others, deposed, or behind with
what they tell their watches.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sidecar.core.store import Event
from sidecar.errors import CoordinatorError, Unavailable
from tests.support.fake_etcd import FakeEtcd

Run = Callable[[], None]
Refuse = Callable[[CoordinatorError], None]
Renewed = Callable[[float, int], None]
"""Takes what a renewal says: the TTL and the raft term."""

LEADERLESS_PATIENCE = 3.0
"""Seconds after which a member without a leader ends its watches (require-leader metadata)."""


class Stream(Protocol):
    """A watch, as its member sees it."""

    member: int

    def offer(self, revision: int, when: float, events: tuple[Event, ...]) -> None:
        """Take the events of a revision that was committed at `when`."""

    def flush(self) -> None:
        """Deliver what waited, if it may go on its way now."""

    def fail(self, error: CoordinatorError) -> None:
        """End with an error."""


@dataclass(slots=True)
class Member:
    """One member.

    Attributes:
        is_down: it refuses connections.
        is_paused: it takes requests and does nothing with them until it goes on.
        is_cut_off: it does not reach the others.
        lag: seconds its watches are behind.
        deposed_until: until when a deposed leader takes itself for the leader.
        held: requests that wait for better times, and whether each may change something.
    """

    index: int
    is_down: bool = False
    is_paused: bool = False
    is_cut_off: bool = False
    lag: float = 0.0
    deposed_until: float = -math.inf
    old_term: int = 0
    old_leases: dict[int, float] = field(default_factory=dict)
    held: list[tuple[Run, bool]] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether it answers, and what it answers is true."""
        return not (self.is_down or self.is_paused or self.is_cut_off)


class FakeCluster:
    """Members in front of one `FakeEtcd`."""

    def __init__(self, etcd: FakeEtcd, size: int = 3) -> None:
        self.etcd = etcd
        self.world = etcd.world
        self.members = [Member(index) for index in range(size)]
        self.leader = 0
        self.streams: list[Stream] = []
        self._is_well = True
        etcd.listeners.append(self._tell)

    def serve(self, index: int, run: Run, refuse: Refuse, *, is_write: bool) -> None:
        """Let a member carry out a request: now, later, never, or refuse it."""
        if self._is_well:
            run()
            return
        member = self.members[index]
        if member.is_down:
            refuse(Unavailable("connection refused"))
        elif member.is_well and self.etcd.is_led:
            run()
        else:
            member.held.append((run, is_write))

    def renew(self, index: int, lease: int, answer: Renewed, refuse: Refuse) -> None:
        """Let a member renew a lease; a deposed leader answers, and nothing is renewed."""
        member = self.members[index]
        if member.deposed_until > self.world.now and not (member.is_down or member.is_paused):
            answer(member.old_leases.get(lease, 0.0), member.old_term)
            return

        def run() -> None:
            self.etcd.renew(lease, lambda ttl: answer(ttl, self.etcd.raft_term))

        self.serve(index, run, refuse, is_write=False)

    def visible(self, index: int, when: float) -> float:
        """Return when a member's watches hear of what was committed at `when`."""
        return when + self.members[index].lag

    def is_stalled(self, index: int) -> bool:
        """Whether a member's watches hear nothing at present."""
        return not self._is_well and not self.members[index].is_well

    # What befalls members

    def pause(self, index: int) -> None:
        """Freeze a member: it holds what it gets, and refuses nothing."""
        self.members[index].is_paused = True
        self._changed(f"member {index} pauses")

    def resume(self, index: int) -> None:
        """Let a paused member go on; of the writes it held some still take effect."""
        self.members[index].is_paused = False
        self._changed(f"member {index} goes on")

    def cut_off(self, index: int) -> None:
        """Take a member's links to the others; without a leader its watches end after a while."""
        self.members[index].is_cut_off = True
        self._changed(f"member {index} is cut off")
        self.world.after(LEADERLESS_PATIENCE, self._lose_patience, index)

    def rejoin(self, index: int) -> None:
        """Give a member its links back."""
        member = self.members[index]
        member.is_cut_off = False
        member.deposed_until = -math.inf
        self._changed(f"member {index} rejoins")

    def kill(self, index: int) -> None:
        """End a member: its watches break, its connections are refused."""
        member = self.members[index]
        member.is_down = True
        member.held.clear()
        self._changed(f"member {index} is down")
        self.break_streams(index)

    def revive(self, index: int) -> None:
        """Start a member that was down."""
        self.members[index].is_down = False
        self._changed(f"member {index} is up")

    def elect(
        self, *, deposed_for: float = 0.0, leaderless_for: float = 0.0, extension: float = 0.0
    ) -> None:
        """Change the cluster's leader: every lease is granted anew.

        Args:
            deposed_for: seconds for which the old leader is cut off and goes on answering
                renewals under its old term, without effect.
            leaderless_for: seconds until the new one leads; nothing is answered meanwhile.
            extension: seconds that are added to every lease, as etcd adds an election timeout.
        """
        old = self.members[self.leader]
        if deposed_for:
            old.deposed_until = self.world.now + deposed_for
            old.old_term = self.etcd.raft_term
            old.old_leases = {lease.id: lease.ttl for lease in self.etcd.leases.values()}
            self.cut_off(old.index)
            self.world.after(deposed_for, self.rejoin, old.index)
        self.etcd.is_led = False
        self._changed("no leader")
        self.world.after(leaderless_for, self._lead, extension)

    def restart(self, *, down_for: float = 0.0) -> None:
        """Stop and start the whole cluster: data are kept, watches break, leases begin anew."""
        for member in self.members:
            self.kill(member.index)
        self.etcd.is_led = False
        self.world.after(down_for, self._start_all)

    def restore(self, revision: int, *, is_new_cluster: bool = False) -> None:
        """Go back to a backup, in a moment: watches break, requests under way are lost."""
        for member in self.members:
            member.held.clear()
        self.break_streams()
        self.etcd.restore(revision, is_new_cluster=is_new_cluster)

    def break_streams(self, index: int | None = None) -> None:
        """End the watches at one member, or at all."""
        for stream in list(self.streams):
            if index is None or stream.member == index:
                stream.fail(Unavailable("the watch's stream broke"))

    def flush(self) -> None:
        """Let every watch deliver what it may by now."""
        for stream in list(self.streams):
            stream.flush()

    def _start_all(self) -> None:
        for member in self.members:
            member.is_down = False
        self._lead(0.0)

    def _lead(self, extension: float) -> None:
        well = [member.index for member in self.members if member.is_well]
        others = [index for index in well if index != self.leader] or well
        self.leader = others[0] if others else self.leader
        self.etcd.lead(extension)
        self._changed(f"member {self.leader} leads")

    def _lose_patience(self, index: int) -> None:
        if self.members[index].is_cut_off:
            self.break_streams(index)

    def _changed(self, what: str) -> None:
        self.world.note("etcd", what)
        members = self.members
        self._is_well = self.etcd.is_led and all(member.is_well for member in members)
        for member in members:
            if member.is_well and self.etcd.is_led and member.held:
                held, member.held = member.held, []
                for run, is_write in held:
                    if not is_write or self.world.rng.random() < 0.5:
                        run()
        self.flush()

    def _tell(self, revision: int, events: tuple[Event, ...], cause: str) -> None:
        for stream in list(self.streams):
            stream.offer(revision, self.world.now, events)
