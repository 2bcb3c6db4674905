"""Sidecars in the simulated world, what they told, and who asks something of them."""

import asyncio
from collections.abc import Callable
from typing import Any

from sidecar.core.codec import Proposal
from sidecar.core.state import ElectionState, Reason, Role
from sidecar.election import Candidate, CandidateConfig, Commands, Election
from sidecar.election.ports import Standing
from tests.election.support import LAYOUT, SOON, Counts, Host, Steady, connect
from tests.support.history import Acting
from tests.support.sim_process import Process
from tests.support.sim_world import Simulation

WITHIN = 10.0


class Notebook:
    """A keeper that is told what it shall say."""

    def __init__(self, *, can_forget: bool = True) -> None:
        self.can_forget = can_forget
        self.remembered: list[Standing] = []
        self.seen: list[tuple[int, int]] = []
        self.forgot = 0
        self.settled = 0
        self.told: asyncio.Event | None = None

    def remember(self, standing: Standing) -> None:
        self.remembered.append(standing)

    async def forget(self) -> bool:
        self.forgot += 1
        return self.can_forget

    def saw(self, token: int, cluster_id: int) -> None:
        self.seen.append((token, cluster_id))

    async def settle(self) -> None:
        self.settled += 1
        if self.told is not None:
            await self.told.wait()


class Sidecar:
    """A process that runs a `Candidate`, and all that it told."""

    def __init__(
        self, sim: Simulation, name: str = "a", *, keeper: Notebook | None = None, **config: Any
    ) -> None:
        self.sim = sim
        self.name = name
        self.process = sim.process(name, rate=1.0)
        self.keeper = keeper or Notebook()
        self.meter = Counts()
        self.told: list[tuple[float, ElectionState]] = []
        priority = config.pop("priority", 100)
        self.config = CandidateConfig(LAYOUT.name, Proposal(name, "", priority), **config)

    def start(self, former: Standing | None = None, *, may_resume: bool = True) -> "Sidecar":
        """Start the process, or start it again."""

        async def live(process: Process) -> None:
            self.etcd = connect(self.sim, process)
            self.candidate = Candidate(
                self.etcd,
                self.config,
                keeper=self.keeper,
                clock=process,
                meter=self.meter,
                rng=Steady(f"{self.name} {process.lives}"),
            )
            self.candidate.state.listen(self._note)
            self.sim.history.attach(process, self._acting, self._known)
            await self.candidate.run(former=former, may_resume=may_resume)

        self.process.start(live)
        return self

    def _note(self) -> None:
        self.told.append((self.sim.now, self.state))

    def _acting(self) -> Acting | None:
        election = self.candidate._election
        if election is None or not election.is_leader():
            return None
        return Acting(election.rev, election.deadline)

    def _known(self) -> list[tuple[bytes, int]]:
        election = self.candidate._election
        return [(election.key.encode(), election.rev)] if election is not None else []

    @property
    def state(self) -> ElectionState:
        """What it tells at the moment."""
        return self.candidate.state.value

    @property
    def leads(self) -> bool:
        """Whether it tells that it leads."""
        return self.state.role is Role.LEADER

    @property
    def election(self) -> Election:
        """Its present candidacy."""
        election = self.candidate._election
        assert election is not None
        return election

    def reasons(self) -> list[Reason]:
        """Every reason it told, in order, each once in a row."""
        told = [state.reason for _, state in self.told]
        return [reason for n, reason in enumerate(told) if n == 0 or told[n - 1] is not reason]

    def call(self, lever: Callable[..., object], *args: Any) -> None:
        """Pull a lever inside the process."""
        self.process.call(lever, *args)

    def until_it_leads(self, within: float = SOON) -> "Sidecar":
        """Let time pass until it tells that it leads."""
        self.sim.until(lambda: self.leads, within=within)
        return self

    def until_it_waits(self, within: float = SOON) -> "Sidecar":
        """Let time pass until it stands in the queue."""
        self.sim.until(lambda: self.state.is_registered, within=within)
        return self

    def until_it_ends(self, within: float = SOON) -> None:
        """Let time pass until `run` returns; no task may be left."""
        main = self.process.main
        assert main is not None
        self.sim.until(main.done, within=within)
        assert asyncio.all_tasks(self.process.loop) == set()

    def stop(self, within: float = SOON) -> None:
        """Stop it, and wait for its end."""
        self.call(self.candidate.stop)
        self.until_it_ends(within)


class Asker(Host):
    """A process that commands."""

    def __init__(self, sim: Simulation) -> None:
        super().__init__(sim, "asker")
        self.commands = Commands(
            self.etcd, LAYOUT.name, within=WITHIN, clock=self.process, rng=Steady("asker")
        )

    def begin(self, work: Any) -> "asyncio.Task[Any]":
        return self.process.spawn(work)


def standing(sim: Simulation, *names: str, **config: Any) -> list[Sidecar]:
    """Return sidecars that stand in this order; the first one leads."""
    cars = []
    for name in names:
        cars.append(Sidecar(sim, name, **config).start().until_it_waits())
        sim.run(0.1)
    cars[0].until_it_leads()
    sim.run(SOON)
    return cars
