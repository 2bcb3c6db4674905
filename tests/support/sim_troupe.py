"""Some simulated sidecars, an operator, what may befall them, and what they are judged by."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

from sidecar.core.codec import decode_proposal
from sidecar.core.keys import Layout
from sidecar.core.store import Delete, Event, Put, Txn
from sidecar.election.commands import Commands
from sidecar.errors import SidecarError
from tests.support.history import JudgementError
from tests.support.sim_network import FAIR, ROUGH, STORM, Fate
from tests.support.sim_process import Process
from tests.support.sim_sidecar import SidecarConfig, SimSidecar
from tests.support.sim_world import ELECTION, Simulation

NAMES = "abcdefgh"
DRIFT_BOUND = 1.06
"""How much longer a span on one clock may be on another, and a little more."""

_REQUESTS = ("grant", "revoke", "prove", "txn", "read", "watch")
_DISKS = ("slow", "full", "readonly", "hung", "stuck")
_ASKED_WITHIN = 30.0


class Troupe:
    """Some sidecars in one simulation, an operator, and what may befall them.

    Every lever takes a sidecar, a span of time and a number in [0, 1) that picks among its kinds,
    so that a list of such triples is a schedule.
    """

    def __init__(self, sim: Simulation, configs: list[SidecarConfig]) -> None:
        self.sim = sim
        self.layout = Layout(ELECTION)
        self.sidecars = [SimSidecar(sim, NAMES[n], config) for n, config in enumerate(configs)]
        self.ttl = max(config.ttl for config in configs)
        self.operator = sim.process("operator")
        self.faults = 0
        self.carried_out = 0
        self._foreign: dict[int, bytes] = {}
        self._is_idle = False
        self._is_calm = False
        self._pauses: list[tuple[float, float]] = []
        sim.etcd.listeners.append(self._note_pause)

    def pull(self, lever: "Lever", one: SimSidecar, span: float, pick: float) -> None:
        """Let something befall a sidecar, noted in the trace."""
        self.faults += 1
        self.sim.world.note("schedule", lever.__name__, one.name, f"{span:.3f} {pick:.3f}")
        lever(self, one, span, pick)

    # Processes

    def freeze(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.freeze(one.process, span)

    def suspend(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.suspend(one.process, span)

    def restart(self, one: SimSidecar, span: float, pick: float) -> None:
        one.restart()

    def crash(self, one: SimSidecar, span: float, pick: float) -> None:
        one.crash()
        self.sim.later(span, one.start)

    def recreate(self, one: SimSidecar, span: float, pick: float) -> None:
        one.recreate()

    def stop(self, one: SimSidecar, span: float, pick: float) -> None:
        one.stop()
        self.sim.later(span, one.restart)

    def retire(self, one: SimSidecar, span: float, pick: float) -> None:
        one.retire()
        if pick < 0.7:
            self.sim.later(span, one.restart)

    def stand_back(self, one: SimSidecar, span: float, pick: float) -> None:
        one.stand_back()
        if pick < 0.7:
            self.sim.later(span, one.stand_again)

    def break_disk(self, one: SimSidecar, span: float, pick: float) -> None:
        one.directory.set_mode(_of(_DISKS, pick))
        self.sim.history.trouble(f"disk of {one.name}: {one.directory.mode}")
        self.sim.later(span, one.directory.set_mode, "fine")

    # Several at once, where one alone does little

    def elect_then_cut(self, one: SimSidecar, span: float, pick: float) -> None:
        """Depose etcd's leader for about as long as between two renewals, then cut one off."""
        deposed_for = self.ttl * (0.1 + 0.2 * pick)
        self.elect(one, deposed_for, 0.0)
        self.sim.later(deposed_for + 0.05, self.sim.cut, one.process)
        self.sim.later(deposed_for + span, self.sim.heal, one.process)

    def leave_then_restart(self, one: SimSidecar, span: float, pick: float) -> None:
        """Let its resign be late, and kill it while that is under way."""
        fate = Fate(lambda txn: removes_candidate(txn, self.layout), request_delay=span)
        self.sim.destine(one.process, "txn", fate)
        one.stand_back()
        self.sim.later(pick * self.ttl / 4, one.restart)

    def resign_on_a_stuck_disk(self, one: SimSidecar, span: float, pick: float) -> None:
        """Command a resign while a status that says leader hangs on its way."""
        one.directory.set_mode("stuck")
        self.sim.later(pick * self.ttl / 2, self.ask, one, span, 0.0)
        self.sim.later(pick * self.ttl / 2 + span, one.directory.set_mode, "fine")

    # Network

    def cut(self, one: SimSidecar, span: float, pick: float) -> None:
        members = (None, *range(len(self.sim.cluster.members)))
        self.sim.cut(one.process, None if pick < 0.5 else _of(members, 2 * pick - 1))
        self.sim.later(span, self.sim.heal, one.process)

    def lose_reply(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.lose_next_reply(one.process, _of(_REQUESTS, pick))

    def lose_request(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.lose_next_request(one.process, _of(_REQUESTS, pick))

    def delay_request(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.destine(one.process, _of(_REQUESTS, pick), Fate(request_delay=span))

    def delay_reply(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.destine(one.process, _of(_REQUESTS, pick), Fate(reply_delay=span))

    def double(self, one: SimSidecar, span: float, pick: float) -> None:
        kind = _of(("txn", "revoke", "grant"), pick)
        self.sim.destine(one.process, kind, Fate(duplicate_after=span))

    def silence_watch(self, one: SimSidecar, span: float, pick: float) -> None:
        if one.is_up:
            self.sim.silence_watch(one.process)

    def break_watch(self, one: SimSidecar, span: float, pick: float) -> None:
        if one.is_up:
            self.sim.break_watch(one.process)

    def weather(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.set_weather(_of((FAIR, ROUGH, STORM), pick))

    # Store

    def elect(self, one: SimSidecar, span: float, pick: float) -> None:
        deposed_for = span if pick < 0.6 else 0.0
        self.sim.elect(
            deposed_for=deposed_for, leaderless_for=min(span, 3.0) * pick, extension=pick
        )

    def pause_member(self, one: SimSidecar, span: float, pick: float) -> None:
        cluster, member = self.sim.cluster, self._member(pick)
        cluster.pause(member)
        self._trouble(span, f"member {member} is paused", lambda: cluster.resume(member))

    def kill_member(self, one: SimSidecar, span: float, pick: float) -> None:
        cluster, member = self.sim.cluster, self._member(pick)
        cluster.kill(member)
        self._trouble(span, f"member {member} is down", lambda: cluster.revive(member))

    def cut_member_off(self, one: SimSidecar, span: float, pick: float) -> None:
        cluster, member = self.sim.cluster, self._member(pick)
        cluster.cut_off(member)
        self._trouble(span, f"member {member} is cut off", lambda: cluster.rejoin(member))

    def lag_member(self, one: SimSidecar, span: float, pick: float) -> None:
        member = self.sim.cluster.members[self._member(pick)]
        member.lag = span

        def catch_up() -> None:
            member.lag = 0.0

        self._trouble(span, f"member {member.index} lags", catch_up)

    def restart_etcd(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.restart_etcd(down_for=span)

    def compact(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.compact()

    def fill(self, one: SimSidecar, span: float, pick: float) -> None:
        self.sim.fill()
        self.sim.later(span, self.sim.empty)

    # People and other programs

    def ask(self, one: SimSidecar, span: float, pick: float) -> None:
        """Have the operator give one of the commands."""
        commands: tuple[Callable[[Commands], Awaitable[object]], ...] = (
            lambda c: c.resign(),
            lambda c: c.handover(),
            lambda c: c.handover(one.name),
            lambda c: c.handover(one.name),
            lambda c: c.pause(),
            lambda c: c.pause(duration=span),
            lambda c: c.resume(),
        )
        if not self.operator.is_alive:
            command = _of(commands, pick)
            self.sim.history.trouble(f"the operator asks, command {commands.index(command)}")
            self.command(command)

    def command(self, command: Callable[[Commands], Awaitable[object]]) -> None:
        """Have the operator give a command; its former one is over, whatever became of it."""
        if self.operator.is_alive:
            self.operator.crash()
        self.operator.start(lambda process: self._ask(process, command))

    async def _ask(
        self, process: Process, command: Callable[[Commands], Awaitable[object]]
    ) -> None:
        commands = Commands(
            self.sim.coordinator(process),
            ELECTION,
            within=_ASKED_WITHIN,
            clock=process,
            rng=self.sim.randomness(process),
        )
        try:
            answer = await command(commands)
        except SidecarError as exc:
            self.sim.world.note("operator", f"{type(exc).__name__}: {exc}")
        else:
            self.carried_out += 1
            self.sim.world.note("operator", "hears", answer)

    def join_foreign(self, one: SimSidecar, span: float, pick: float) -> None:
        """Let another program stand for a while, as `etcdctl elect` does."""
        if self.sim.etcd.is_full:
            return
        lease = self.sim.world.rng.getrandbits(62) + 1
        key = self.layout.candidate(lease)
        self.sim.etcd.grant(lease, max(span, 2.0))
        self.sim.history.foreign.add(key)
        self.sim.etcd.txn(Txn(then=(Put(key, b"another program", lease),)), "foreign")
        self._foreign[lease] = key
        self._trouble(span, "another program stands", lambda: self._leave(lease))

    def _leave(self, lease: int) -> None:
        if self._foreign.pop(lease, None) is not None:
            self.sim.etcd.revoke(lease, "foreign")

    def delete_key(self, one: SimSidecar, span: float, pick: float) -> None:
        election = one.election
        if election is not None and election.key:
            self.sim.delete_from_outside(election.key.encode())

    def revoke_lease(self, one: SimSidecar, span: float, pick: float) -> None:
        election = one.election
        if election is not None and election.session.lease in self.sim.etcd.leases:
            self.sim.revoke_from_outside(election.session.lease)

    def restore(self, revision: int, *, is_new_cluster: bool = False) -> None:
        """Restore a backup as the README says: with revisions bumped and history compacted."""
        etcd = self.sim.etcd
        newest = etcd.revision
        self.sim.restore(revision, is_new_cluster=is_new_cluster)
        while etcd.revision <= newest:
            etcd.txn(Txn(then=(Put(b"/bump", b""),)), "bump")
        etcd.compact()

    # Calm

    def calm(self) -> None:
        """End what goes on; whoever is meant to stand runs again and stands."""
        sim = self.sim
        sim.set_weather(FAIR)
        sim.network.forget_fates()
        sim.heal()
        if self.operator.is_alive:
            self.operator.crash()
        for one in self.sidecars:
            one.directory.set_mode("fine")
            if not one.is_up:
                one.start()
        self._is_calm = True
        self._end_pause()
        self._is_idle = not any(one.is_wanted for one in self.sidecars)
        if self._is_idle:
            sim.history.trouble_begins("nobody is meant to stand")

    def _end_pause(self) -> None:
        if self.sim.etcd.get(self.layout.pause) is not None:
            self.sim.etcd.txn(Txn(then=(Delete(self.layout.pause),)), "resume")

    def disturb(self) -> None:
        """End the calm."""
        self._is_calm = False

    def replace_the_idle(self) -> None:
        """Start anew whoever was told not to stand."""
        for one in self.sidecars:
            if not one.is_wanted:
                one.restart()
        if self._is_idle:
            self._is_idle = False
            self.sim.history.trouble_ends("nobody was meant to stand")

    # What it is judged by

    def judge(self, led_within: float) -> None:
        """Raise what broke a promise; call it in a calm.

        Raises:
            JudgementError: with the trace, and the seed.
        """
        self.sim.judge(led_within=led_within, is_settled=True)
        found = [*self._acted_in_pauses(), *self._unwanted_keys(), *self._silent_sidecars()]
        if found:
            raise JudgementError("\n".join([*found, self.sim.world.story()]))

    def _acted_in_pauses(self) -> list[str]:
        history = self.sim.history
        return [
            f"{acting} in the pause [{start:.6f}, {end:.6f})"
            for start, end in self._pauses
            for acting in history.all_intervals()
            if max(acting.start, start + self.ttl * DRIFT_BOUND) < min(acting.until, end)
        ]

    def _unwanted_keys(self) -> list[str]:
        unwanted = {one.name for one in self.sidecars if not one.is_wanted}
        kvs = self.sim.etcd.read(self.layout.candidates, self.layout.end).kvs
        return [
            f"{kv.key!r} stands although {owner} was told not to"
            for kv in kvs
            if (owner := decode_proposal(kv.key, kv.value).id) in unwanted
        ]

    def _silent_sidecars(self) -> list[str]:
        return [
            f"{one.name} has not joined: {one.state}"
            for one in self.sidecars
            if one.is_wanted and one.is_up and one.config.priority and not one.state.is_registered
        ]

    def _note_pause(self, revision: int, events: tuple[Event, ...], cause: str) -> None:
        is_paused = self.sim.etcd.get(self.layout.pause) is not None
        was_paused = bool(self._pauses) and self._pauses[-1][1] == math.inf
        if is_paused and not was_paused:
            self.sim.history.trouble_begins("a pause")
            self._pauses.append((self.sim.now, math.inf))
            if self._is_calm:  # the command came late
                self.sim.later(self.ttl, self._end_pause)
        elif was_paused and not is_paused:
            self.sim.history.trouble_ends("a pause")
            self._pauses[-1] = (self._pauses[-1][0], self.sim.now)

    def _trouble(self, span: float, what: str, ends: Callable[[], object]) -> None:
        self.sim.history.trouble_begins(what)

        def end() -> None:
            ends()
            self.sim.history.trouble_ends(what)

        self.sim.world.after(span, end)

    def _member(self, pick: float) -> int:
        return int(pick * len(self.sim.cluster.members))


Lever = Callable[[Troupe, SimSidecar, float, float], None]

LEVERS: tuple[Lever, ...] = (
    Troupe.elect_then_cut, Troupe.leave_then_restart, Troupe.resign_on_a_stuck_disk,
    Troupe.freeze, Troupe.suspend, Troupe.restart, Troupe.crash, Troupe.recreate, Troupe.stop,
    Troupe.retire, Troupe.stand_back, Troupe.break_disk, Troupe.cut, Troupe.lose_reply,
    Troupe.lose_request, Troupe.delay_request, Troupe.delay_reply, Troupe.double,
    Troupe.silence_watch, Troupe.break_watch, Troupe.weather, Troupe.elect, Troupe.pause_member,
    Troupe.kill_member, Troupe.cut_member_off, Troupe.lag_member, Troupe.restart_etcd,
    Troupe.compact, Troupe.fill, Troupe.ask, Troupe.ask, Troupe.ask,
)  # fmt: skip
"""What may befall them while every promise holds."""

OUTSIDE: tuple[Lever, ...] = (
    Troupe.join_foreign, Troupe.delete_key, Troupe.revoke_lease,
)  # fmt: skip
"""What others do to the store: a deleted key's term may outlast it by one TTL."""


def removes_candidate(txn: object, layout: Layout) -> bool:
    """Whether a request removes a candidate's key: resign, handover, move, clean-up."""
    return isinstance(txn, Txn) and any(
        isinstance(op, Delete) and op.key.startswith(layout.candidates) for op in txn.then
    )


def _of(choices: Any, pick: float) -> Any:
    return choices[int(pick * len(choices))]
