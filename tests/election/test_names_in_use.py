"""An election beside others: a name that is a prefix of another one's, or lies inside it."""

import pytest

from sidecar.core.keys import Layout
from sidecar.core.store import Put, Txn
from sidecar.election.names import check_name
from sidecar.errors import ConfigError, PermissionDenied
from tests.election.sidecars import Sidecar
from tests.election.support import SOON, Host, put_foreign
from tests.support.sim_network import Fate
from tests.support.sim_world import Simulation

pytestmark = pytest.mark.sim


def put(sim: Simulation, key: str) -> None:
    sim.etcd.txn(Txn(then=(Put(key.encode(), b""),)))


def check(sim: Simulation, name: str) -> None:
    host = Host(sim, f"checks {name}")
    host.do(check_name(host.etcd, name))


def test_a_name_that_nobody_else_uses_is_fine(sim: Simulation) -> None:
    put(sim, "/a/b0")
    put(sim, "/a/bc/1")
    put(sim, "/a/b.x/1")
    check(sim, "/a/b")


def test_the_candidates_of_the_election_itself_are_no_other_one(sim: Simulation) -> None:
    Sidecar(sim).start().until_it_leads()
    put_foreign(sim)
    sim.run(SOON)
    check(sim, "/sim/election")


def test_a_prefix_of_an_election_in_use_is_refused(sim: Simulation) -> None:
    Sidecar(sim).start().until_it_leads()
    with pytest.raises(ConfigError) as refused:
        check(sim, "/sim")
    (problem,) = refused.value.problems
    assert problem == (
        "--election: '/sim' is a prefix of '/sim/election', which is in use; use another"
    )


@pytest.mark.parametrize(
    "key", ["/a/b/c/1", "/a/b/c.control/pause", "/a/b/c.history/1", "/a/b/c.control/request/1"]
)
def test_each_key_of_an_election_below_names_it(sim: Simulation, key: str) -> None:
    put(sim, key)
    for name in ("/a", "/a/b"):
        with pytest.raises(ConfigError, match=f"'{name}' is a prefix of '/a/b/c', which"):
            check(sim, name)


def test_a_name_inside_an_election_in_use_is_refused(sim: Simulation) -> None:
    Sidecar(sim).start().until_it_leads()
    sim.run(SOON)
    with pytest.raises(ConfigError, match="'/sim/election/x/y' lies inside '/sim/election'"):
        check(sim, "/sim/election/x/y")


@pytest.mark.parametrize("own", ["control/pause", "history/0000000000000001"])
def test_what_an_election_keeps_beside_its_queue_shows_that_it_is_in_use(
    sim: Simulation, own: str
) -> None:
    put(sim, f"/a.{own}")
    with pytest.raises(ConfigError, match="lies inside '/a'"):
        check(sim, "/a/b")


def test_who_may_not_look_above_is_not_disturbed_from_there(sim: Simulation) -> None:
    put(sim, "/a.control/pause")
    host = Host(sim)
    sim.destine(
        host.process,
        "read",
        Fate(matching=lambda key: key == Layout("/a").start, error=PermissionDenied("no")),
    )
    host.do(check_name(host.etcd, "/a/b"))


def test_who_may_not_look_is_told_what_it_needs(sim: Simulation) -> None:
    host = Host(sim)
    sim.destine(host.process, "read", Fate(error=PermissionDenied("permission denied")))
    with pytest.raises(PermissionDenied, match=r"needed: etcdctl role grant-permission .*/sim/"):
        host.do(check_name(host.etcd, "/sim/election"))
