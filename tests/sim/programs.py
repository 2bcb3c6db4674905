"""Programs of users in the simulation: no sidecar, only the library."""

from collections.abc import Callable, Coroutine
from typing import Any

from sidecar.election.election import Election
from sidecar.election.session import Session
from tests.sim.scenes import TTL
from tests.support.history import Acting
from tests.support.sim_process import Process
from tests.support.sim_world import ELECTION, Simulation


class Program:
    """A program that campaigns by itself with the library, as `sidecar.election` shows it."""

    def __init__(self, sim: Simulation, name: str = "p") -> None:
        self.sim = sim
        self.process = sim.process(name)
        self.election: Election | None = None

    def start(self, life: Callable[[Election], Coroutine[Any, Any, None]]) -> None:
        async def main(process: Process) -> None:
            etcd, rng = self.sim.coordinator(process), self.sim.randomness(process)
            self.sim.history.attach(process, self._acting, self._known_keys)
            async with (
                Session(etcd, ttl=TTL, clock=process, rng=rng) as session,
                Election(session, ELECTION) as self.election,
            ):
                await life(self.election)

        self.process.start(main)

    def _acting(self) -> Acting | None:
        election = self.election
        if election is None or not election.is_leader():
            return None
        return Acting(election.rev, election.deadline)

    def _known_keys(self) -> list[tuple[bytes, int]]:
        return [(self.election.key.encode(), self.election.rev)] if self.election else []
