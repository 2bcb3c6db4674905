"""What the operator asks of an election is for one term, and for no other."""

import asyncio

import pytest

from sidecar.core.codec import Answer, Proposal, encode_answer, encode_proposal
from sidecar.core.keys import Layout
from sidecar.core.queue import Entry, QueueReplica
from sidecar.core.store import Delete, Put, Txn
from sidecar.election.observer import Observer
from sidecar.etcd import EtcdCoordinator
from sidecar.operator.commanding import DONE, FAILED, REFUSED, Outcome, carry_out
from sidecar.operator.moves import CORDON, EVICTION, Move
from sidecar.operator.view import View, look
from tests.support.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.integration


async def seen(etcd: EtcdCoordinator, layout: Layout) -> View:
    reply = await etcd.read(layout.start, layout.end, timeout=5)
    replica = QueueReplica(layout)
    replica.replace(reply.header, reply.kvs)
    return look(replica, "")


async def standing(etcd: EtcdCoordinator, layout: Layout) -> View:
    for n in range(2):
        put = Put(layout.candidate(n + 1), encode_proposal(Proposal(f"m-{n}", "")), 0)
        await etcd.txn(Txn(guards=(), then=(put,)), timeout=5)
    return await seen(etcd, layout)


async def accept(etcd: EtcdCoordinator, layout: Layout) -> None:
    """Answer the first request as a leader does that drains."""
    changed = asyncio.Event()
    async with Observer(etcd, layout.name) as observer:
        observer.listen(changed.set)
        while not observer.replica.requests:
            await changed.wait()
            changed.clear()
        ((nonce, request),) = observer.replica.requests.items()
    put = Put(layout.answer(nonce), encode_answer(Answer(accepted=True)), request.lease)
    await etcd.txn(Txn(guards=(), then=(put,)), timeout=5)


async def accepted(
    etcd: EtcdCoordinator, election: str, reason: str, drain: float
) -> tuple[Entry, asyncio.Task[Outcome]]:
    """Begin a handover that the leader has accepted; return the leader, who drains, and it."""
    layout = Layout(election)
    before = await standing(etcd, layout)
    move = Move(reason, before.token, before.entries[1])
    begun = asyncio.create_task(carry_out(etcd, election, move, within=5.0, drain=drain))
    await accept(etcd, layout)
    return before.entries[0], begun


async def test_a_leader_that_drains_for_longer_than_a_command_may_take_is_waited_for(
    one_member: EtcdCluster, election: str
) -> None:
    async with EtcdCoordinator(one_member.endpoints[0]) as etcd:
        leader, begun = await accepted(etcd, election, CORDON, 60.0)
        done, _ = await asyncio.wait({begun}, timeout=5.5)
        assert not done
        gone = Txn(guards=(), then=(Delete(leader.key),))
        await etcd.txn(gone, timeout=5)
        assert await begun == Outcome(DONE)


@pytest.mark.parametrize(("drain", "result"), [(0.0, DONE), (0.5, FAILED)])
async def test_what_was_accepted_is_told_so_when_nobody_waits_any_longer(
    one_member: EtcdCluster, election: str, drain: float, result: str
) -> None:
    async with EtcdCoordinator(one_member.endpoints[0]) as etcd:
        _, begun = await accepted(etcd, election, EVICTION, drain)
        outcome = await begun
        assert outcome.result == result
        assert "'m-0' has accepted" in outcome.message


async def test_a_move_of_a_term_that_is_over_is_refused_and_nobody_is_asked(
    one_member: EtcdCluster, election: str
) -> None:
    layout = Layout(election)
    async with EtcdCoordinator(one_member.endpoints[0]) as etcd:
        before = await standing(etcd, layout)
        late = Move(CORDON, before.token - 1, before.entries[1])
        outcome = await carry_out(etcd, election, late, within=5.0)
        assert outcome.result == REFUSED
        assert "is over" in outcome.message
        after = await seen(etcd, layout)
        assert after.entries == before.entries
