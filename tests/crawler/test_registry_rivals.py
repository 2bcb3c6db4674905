"""Whether a key under the own id is a living rival's or a dead predecessor's, in virtual time."""

from collections.abc import Callable

import pytest
from crawler import keys
from crawler.records import Node
from crawler.registry import NodeIdInUse, Registry

from sidecar.core.store import Put, Txn
from tests.crawler.sim_leader import Stage, stage

TTL = 5.0
LEASE = 4711
KEY = keys.node(keys.REGISTRY, "w", "1")

pytestmark = pytest.mark.sim


def predecessor(on: Stage, ttl: float = TTL, told: str = "") -> None:
    """Leave a key on a lease that nobody renews."""
    on.etcd.grant(LEASE, ttl)
    value = Node("w", "1", "old:1", {"ttl": told} if told else {}).encode()
    on.etcd.txn(Txn(then=(Put(KEY, value, LEASE),)))


def stand(on: Stage) -> None:
    """Register, until that is done."""

    async def body() -> None:
        store = on.coordinator()
        async with Registry(
            store, keys.REGISTRY, "w", "1", "new:1", ttl=TTL, clock=on.process
        ) as registry:
            await registry.registered()
            found = on.etcd.get(KEY)
            assert found is not None
            assert found.lease != LEASE

    on.run(body)


def repeatedly(on: Stage, every: float, times: int, lever: Callable[[], None]) -> None:
    for number in range(1, times + 1):
        on.sim.later(number * every, lever)


@pytest.mark.parametrize("elections", [0, 1, 8])
def test_a_dead_key_is_waited_for_however_often_etcd_grants_its_lease_anew(elections: int) -> None:
    with stage() as on:
        predecessor(on)
        repeatedly(on, TTL - 1, elections, on.sim.elect)
        stand(on)


def test_a_dead_key_on_a_longer_lease_is_waited_for_where_it_tells_so() -> None:
    with stage() as on:
        predecessor(on, ttl=60, told="60")
        stand(on)


@pytest.mark.parametrize("told", ["", "inf", "nan", "long"])
def test_time_without_answers_does_not_count(told: str) -> None:
    with stage() as on:
        predecessor(on, ttl=50, told=told)
        for outage in range(9):  # each shorter than the TTL, so that the own lease lives
            on.sim.later(5 * outage + 1, on.sim.cut, on.process)
            on.sim.later(5 * outage + 4, on.sim.heal, on.process)
        stand(on)


def test_a_living_rival_is_told_from_a_dead_one() -> None:
    with stage() as on:
        predecessor(on)
        repeatedly(on, 1, 60, lambda: on.etcd.renew(LEASE, lambda _: None))
        with pytest.RaisesGroup(
            pytest.RaisesExc(NodeIdInUse, match=r"'1' is in use .*old:1"), flatten_subgroups=True
        ):
            stand(on)
        assert on.sim.now < 4 * TTL + 2
