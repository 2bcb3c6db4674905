"""Leader election for asyncio programs: `Session`, `Election`, `Observer`, and their ports.

What etcd's Go package `concurrency` offers, with deadlines that cannot outlive the lease, on
any store that implements `Coordinator`::

    async with (
        EtcdCoordinator("http://127.0.0.1:2379") as etcd,
        Session(etcd, ttl=5) as session,
        Election(session, "/resources/election") as election,
    ):
        await election.campaign("worker-1")
        while election.is_leader():          # asks the clock, each time
            await one_fenced_step(key=election.key, token=election.rev)

`Candidate` is the life of a sidecar built on them: it stands again after every loss and steps
down in order. Nothing in here reads a file, opens a socket or knows etcd.
"""

from sidecar.core.state import Leader
from sidecar.election.candidate import Candidate, CandidateConfig
from sidecar.election.commands import Commands
from sidecar.election.election import Election
from sidecar.election.observer import Observer
from sidecar.election.ports import Clock, Coordinator, SystemClock
from sidecar.election.session import Session

__all__ = [
    "Candidate",
    "CandidateConfig",
    "Clock",
    "Commands",
    "Coordinator",
    "Election",
    "Leader",
    "Observer",
    "Session",
    "SystemClock",
]
