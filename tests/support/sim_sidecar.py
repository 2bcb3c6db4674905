"""A whole sidecar in the simulation: candidate, status file and session record over its lives.

It puts the product's parts together as `sidecar.app` does, without what needs sockets. What it
tells is judged with what it does: whoever says *leader* anywhere counts as acting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sidecar.core.codec import Proposal
from sidecar.core.state import ElectionState, Reason
from sidecar.election.background import Background
from sidecar.election.candidate import Candidate, CandidateConfig, initial_state
from sidecar.election.election import Election
from sidecar.election.feed import Feed
from sidecar.election.ports import Standing
from sidecar.outputs.health import OutputErrors
from tests.support.history import Acting
from tests.support.sim_disk import SimDirectory, SimKeeper, SimStatusFile
from tests.support.sim_process import Process
from tests.support.sim_world import ELECTION, Simulation

_LOCK_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class SidecarConfig:
    """What differs between the sidecars of one simulation; times in seconds."""

    ttl: float = 5.0
    margin: float | None = None
    drain: float = 0.0
    priority: int = 100
    address: str = ""


class SimSidecar:
    """One sidecar: a process with a directory, whose lives follow each other.

    Attributes:
        candidate: that of the present life, or of the last one.
        is_wanted: whether it is meant to stand; False after `stand_back`, `retire` and `stop`.
        accepts_token_reset: whether the next life forgets the largest token seen.
    """

    def __init__(
        self,
        sim: Simulation,
        name: str,
        config: SidecarConfig | None = None,
        *,
        directory: SimDirectory | None = None,
    ) -> None:
        self.sim = sim
        self.config = config or SidecarConfig()
        self.process = sim.process(name)
        self.directory = directory or SimDirectory(self.process, sim.history)
        self.candidate: Candidate | None = None
        self.is_wanted = True
        self.accepts_token_reset = False

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def is_up(self) -> bool:
        """Whether it runs (frozen or not)."""
        return self.process.is_alive

    @property
    def election(self) -> Election | None:
        return self.candidate._election if self.candidate is not None and self.is_up else None

    def is_leader(self) -> bool:
        """Whether it acts at this moment."""
        return self.is_up and self.candidate is not None and self.candidate.is_leader()

    @property
    def state(self) -> ElectionState:
        """What it tells at this moment."""
        assert self.candidate is not None, "never started"
        return self.candidate.state.value.at(self.process.now())

    # Levers

    def start(self) -> None:
        """Begin a life, as soon as the last one has let go of the directory."""
        if self.is_up:
            return
        if self.directory.is_locked:
            self.sim.later(_LOCK_PAUSE, self.start)
            return
        self.is_wanted = True
        self.directory.holder = self.process
        self.process.start(self._main)

    def crash(self) -> None:
        """End it as SIGKILL does."""
        if self.is_up:
            self.sim.crash(self.process)
            self.directory.crashed()

    def restart(self) -> None:
        """End it as SIGKILL does and start it at once."""
        self.crash()
        self.start()

    def recreate(self) -> None:
        """End it and start it with an empty directory, as a deleted pod is."""
        self.crash()
        self.directory.wipe()
        self.start()

    def stand_back(self) -> None:
        """Let its program be unhealthy."""
        self._tell(lambda candidate: candidate.stand_back(Reason.UNHEALTHY), is_wanted=False)

    def stand_again(self) -> None:
        """Let its program be healthy again."""
        if self.candidate is not None and self.candidate._stop is None:
            self._tell(Candidate.stand_again, is_wanted=True)

    def retire(self) -> None:
        """Let it step down for good, and run on."""
        self._tell(Candidate.retire, is_wanted=False)

    def stop(self) -> None:
        """Send it SIGTERM."""
        self._tell(Candidate.stop, is_wanted=False)

    def _tell(self, what: Callable[[Candidate], None], *, is_wanted: bool) -> None:
        if self.is_up and self.candidate is not None:
            self.is_wanted = is_wanted
            self.sim.history.trouble(f"{self.name} is told, wanted: {is_wanted}")
            self.process.call(what, self.candidate)

    # Its life

    async def _main(self, process: Process) -> None:
        config = CandidateConfig(
            ELECTION,
            Proposal(self.name, self.config.address, self.config.priority),
            ttl=self.config.ttl,
            margin=self.config.margin,
            drain=self.config.drain,
            least_token=self._least_token(),
        )
        feed = Feed(initial_state(config, process))
        keeper = SimKeeper(self.directory, ELECTION, self.name)
        status = SimStatusFile(self.directory, feed, OutputErrors(_uncounted))
        keeper.add_believer(status.settle)
        coordinator = self.sim.coordinator(process)
        self.candidate = candidate = Candidate(
            coordinator,
            config,
            keeper=keeper,
            clock=process,
            rng=self.sim.randomness(process),
            state=feed,
        )
        self.sim.history.attach(process, self._acting, self._known_keys)
        former = self._former()
        if former is None:
            await status.write_initial()
        async with Background() as outputs:
            outputs.start(_write_status(candidate, status), name="status")
            await candidate.run(former=former)
            await status.settle()

    def _least_token(self) -> int:
        seen = self.directory.seen
        if self.accepts_token_reset or seen is None:
            self.accepts_token_reset = False
            return 0
        return seen.token

    def _former(self) -> Standing | None:
        record = self.directory.session
        if record is None:
            return None
        return Standing(record.lease, record.key, record.token, record.ttl, record.cluster_id)

    def _acting(self) -> Acting | None:
        """Return what it acts on, or says that it acts on."""
        election = self.election
        if election is not None and election.is_leader():
            return Acting(election.rev, election.deadline)
        state = self.state
        return Acting(state.token, state.deadline) if state.token else None

    def _known_keys(self) -> Sequence[tuple[bytes, int]]:
        election = self.election
        return [(election.key.encode(), election.rev)] if election is not None else []


async def _write_status(candidate: Candidate, status: SimStatusFile) -> None:
    await candidate.decided.wait()
    status.follow()


def _uncounted(output: str) -> None:
    pass
