"""What the operator asks of an election is for one term, and for no other."""

import pytest

from sidecar.core.codec import Proposal, encode_proposal
from sidecar.core.keys import Layout
from sidecar.core.queue import QueueReplica
from sidecar.core.store import Put, Txn
from sidecar.etcd import EtcdCoordinator
from sidecar.operator.commanding import REFUSED, carry_out
from sidecar.operator.moves import CORDON, Move
from sidecar.operator.view import View, look
from tests.support.etcd_cluster import EtcdCluster

pytestmark = pytest.mark.integration


async def seen(etcd: EtcdCoordinator, layout: Layout) -> View:
    reply = await etcd.read(layout.start, layout.end, timeout=5)
    replica = QueueReplica(layout)
    replica.replace(reply.header, reply.kvs)
    return look(replica, "")


async def test_a_move_of_a_term_that_is_over_is_refused_and_nobody_is_asked(
    one_member: EtcdCluster, election: str
) -> None:
    layout = Layout(election)
    async with EtcdCoordinator(one_member.endpoints[0]) as etcd:
        for n in range(2):
            put = Put(layout.candidate(n + 1), encode_proposal(Proposal(f"m-{n}", "")), 0)
            await etcd.txn(Txn(guards=(), then=(put,)), timeout=5)
        before = await seen(etcd, layout)
        late = Move(CORDON, before.token - 1, before.entries[1])
        outcome = await carry_out(etcd, election, late, within=5.0)
        assert outcome.result == REFUSED
        assert "is over" in outcome.message
        after = await seen(etcd, layout)
        assert after.entries == before.entries
