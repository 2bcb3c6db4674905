"""A simulated election: world, fake etcd, network, history, and the levers that tests pull.

::

    with Simulation(seed=7) as sim:
        a, b = sim.process("a", rate=1.02), sim.process("b", rate=0.98)
        for process in (a, b):
            process.start(candidate)  # async def candidate(process): … sim.coordinator(process)
        sim.run(10)
        sim.freeze(a, 8)
        sim.run(60)
        sim.judge(led_within=7, is_settled=True)
"""

import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from sidecar.core.store import Delete, Txn
from sidecar.errors import Unavailable
from tests.support.fake_cluster import FakeCluster
from tests.support.fake_coordinator import FakeCoordinator
from tests.support.fake_etcd import FakeEtcd
from tests.support.history import History
from tests.support.sim_network import FAIR, Fate, Network, Weather
from tests.support.sim_process import Process, World

T = TypeVar("T")

ELECTION = "/sim/election"
DRIFT = 0.025
"""How far a clock's rate may be from 1: two of them are then at most 5 % apart."""


class Simulation:
    """One election in one world. A context manager: at its end it buries what crashed.

    Attributes:
        world: time, processes, trace; `world.rng` is the only source of randomness.
        etcd: the store's state. cluster: its members. network: what lies between.
        history: what happened, and the judge.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        members: int = 3,
        weather: Weather = FAIR,
        sweep: float = 0.0,
        election: str = ELECTION,
        excused_for: float = 5.0,
    ) -> None:
        self.world = World(seed)
        self.etcd = FakeEtcd(self.world, sweep=sweep)
        self.cluster = FakeCluster(self.etcd, members)
        self.network = Network(self.world, weather)
        self.prefix = f"{election}/".encode()
        self.history = History(self.world, self.etcd, self.prefix, excused_for=excused_for)
        self.coordinators: dict[str, FakeCoordinator] = {}
        self._is_cutting = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.world.close()

    # Processes

    def process(
        self, name: str, *, rate: float | None = None, offset: float | None = None
    ) -> Process:
        """Add a process; where they are not given, its clock's rate and offset are drawn."""
        rng = self.world.rng
        drawn = (1 + rng.uniform(-DRIFT, DRIFT), rng.uniform(1_000.0, 100_000.0))
        return self.world.process(
            name,
            rate=drawn[0] if rate is None else rate,
            offset=drawn[1] if offset is None else offset,
        )

    def coordinator(self, process: Process) -> FakeCoordinator:
        """Connect the present life of a process to the store."""
        coordinator = FakeCoordinator(process, self.cluster, self.network)
        self.coordinators[process.name] = coordinator
        return coordinator

    def randomness(self, process: Process) -> random.Random:
        """Return a source of randomness for one life of a process, bound to the seed."""
        return random.Random(f"{self.world.seed} {process.name} {process.lives}")

    # Time

    @property
    def now(self) -> float:
        """True time, in seconds."""
        return self.world.now

    def run(self, seconds: float) -> None:
        """Let true time pass."""
        self.world.run(seconds)

    def until(self, condition: Callable[[], bool], *, within: float) -> None:
        """Let true time pass until a condition holds.

        Raises:
            AssertionError: it does not within so many true seconds; says what happened.
        """
        if not self.world.run_until(condition, self.now + within):
            raise AssertionError(f"not within {within} s\n{self.world.story()}")

    def complete(self, process: Process, coro: Coroutine[Any, Any, T], limit: float = 3600.0) -> T:
        """Run a coroutine in a process to its end."""
        return self.world.complete(process, coro, limit)

    def later(self, seconds: float, lever: Callable[..., object], *args: Any, **more: Any) -> None:
        """Pull a lever in so many true seconds."""
        self.world.after(seconds, lambda: lever(*args, **more))

    def judge(self, *, led_within: float | None = None, is_settled: bool = False) -> None:
        """Raise what broke a promise; see `History.judge`."""
        self.history.judge(led_within=led_within, is_settled=is_settled)

    # Levers on processes

    def freeze(self, process: Process, seconds: float) -> None:
        """Stop a process and let it go on later, as SIGSTOP and SIGCONT do."""
        self._stop_for(process, seconds, process.freeze)

    def suspend(self, process: Process, seconds: float) -> None:
        """Suspend its machine: as a freeze, and its loop's clock stands still too."""
        self._stop_for(process, seconds, process.suspend)

    def _stop_for(self, process: Process, seconds: float, stop: Callable[[], None]) -> None:
        if process.is_frozen or not process.is_alive:
            return
        self.history.trouble_begins(f"{process.name} stands still for {seconds:.3f} s")
        stop()
        self.world.after(seconds, self._thaw, process, process.lives)

    def _thaw(self, process: Process, life: int) -> None:
        if process.lives == life:
            process.thaw()
        self.history.trouble_ends(f"{process.name} stood still")

    def crash(self, process: Process) -> None:
        """End a process as SIGKILL does."""
        self.history.trouble(f"{process.name} crashes")
        process.crash()

    def restart(self, process: Process) -> None:
        """Crash a process where it is alive, and start its main again."""
        self.history.trouble(f"{process.name} restarts")
        process.restart()

    # Levers on the network

    def set_weather(self, weather: Weather) -> None:
        """Change how the network behaves from here on; bad weather is no trouble by itself."""
        self.history.trouble(f"weather: {weather}")
        self.network.weather = weather

    def cut(self, process: Process, member: int | None = None) -> None:
        """Let nothing pass between a process and a member (None: all), until `heal`."""
        self.world.note("fault", f"cut {process.name} from {_name(member)}")
        if not self._is_cutting:
            self._is_cutting = True
            self.history.trouble_begins("cuts")
        for index in self._indices(member):
            self.network.cut(process, index)

    def heal(self, process: Process | None = None, member: int | None = None) -> None:
        """Take back the cuts of a process (None: all) to a member (None: all).

        The trouble of all cuts ends with the last of them.
        """
        self.network.heal(process, member)
        self.cluster.flush()
        self.world.note("fault", f"heal {_name(process)} and {_name(member)}")
        if self._is_cutting and not self.network.has_cuts:
            self._is_cutting = False
            self.history.trouble_ends("cuts")

    def silence_watch(self, process: Process) -> None:
        """Let the present watches of a process hear nothing more, without an error."""
        self.history.trouble(f"the watches of {process.name} fall silent")
        for stream in self.coordinators[process.name].streams:
            stream.is_silent = True

    def break_watch(self, process: Process) -> None:
        """End the present watches of a process with an error."""
        self.history.trouble(f"the watches of {process.name} break")
        for stream in list(self.coordinators[process.name].streams):
            self.cluster.world.at(
                self.now, process.call, stream.drop, Unavailable("the watch broke")
            )

    def destine(self, process: Process, kind: str, fate: Fate) -> None:
        """Name what happens to the next request of a kind that matches.

        Kinds: grant, revoke, prove, txn, read, watch.
        """
        self.network.destine(process, kind, fate)

    def lose_next_reply(self, process: Process, kind: str) -> None:
        """Let the next request of a kind take effect without an answer."""
        self.destine(process, kind, Fate(loses_reply=True))

    def lose_next_request(self, process: Process, kind: str) -> None:
        """Lose the next request of a kind: it never takes effect."""
        self.destine(process, kind, Fate(loses_request=True))

    # Levers on the store

    def elect(self, **how: float) -> None:
        """Change etcd's own leader; see `FakeCluster.elect`."""
        self.history.trouble(f"etcd elects {how}")
        self.cluster.elect(**how)

    def restart_etcd(self, *, down_for: float = 0.0) -> None:
        """Stop and start the whole cluster."""
        self.history.trouble_begins(f"etcd is down for {down_for:.3f} s")
        self.cluster.restart(down_for=down_for)
        self.world.after(down_for, self.history.trouble_ends, "etcd was down")

    def restore(self, revision: int, *, is_new_cluster: bool = False) -> None:
        """Put the store back to an earlier revision."""
        self.history.trouble(f"etcd is restored to revision {revision}")
        self.cluster.restore(revision, is_new_cluster=is_new_cluster)

    def compact(self, revision: int = 0) -> None:
        """Compact the store (0: at the present revision)."""
        self.etcd.compact(revision)

    def fill(self) -> None:
        """Raise the alarm NOSPACE: puts and grants are refused until `empty`."""
        self.history.trouble_begins("etcd is full")
        self.etcd.is_full = True

    def empty(self) -> None:
        """Take the alarm back."""
        self.etcd.is_full = False
        self.history.trouble_ends("etcd was full")

    def delete_from_outside(self, key: bytes) -> None:
        """Delete a key as an operator does, who asks nobody."""
        self.history.trouble(f"{key!r} is deleted from outside")
        self.etcd.txn(Txn(then=(Delete(key),)), "outside")

    def revoke_from_outside(self, lease: int) -> None:
        """Revoke a lease as an operator does."""
        self.history.trouble(f"lease {lease:x} is revoked from outside")
        self.etcd.revoke(lease, "outside")

    def _indices(self, member: int | None) -> range:
        return range(len(self.cluster.members)) if member is None else range(member, member + 1)


def _name(what: Process | int | None) -> str:
    return "all" if what is None else what.name if isinstance(what, Process) else f"member {what}"
