"""How a member of etcd begins, who is removed, what is granted, what a rollout does next."""

from dataclasses import replace
from typing import Any

import pytest

from sidecar.cluster import deciding, rights, rolling
from sidecar.cluster.deciding import Data, Seen, decide, initial_cluster
from sidecar.cluster.looking import verdict
from sidecar.cluster.own_pod import data_of
from sidecar.cluster.rights import Rights, User, changes, election_grant, prefix_grant
from sidecar.cluster.rolling import Pod, State, next_step
from sidecar.cluster.sizing import next_to_remove, own_learner
from sidecar.etcd.admin import Grant, MemberInfo, MemberList
from sidecar.etcd.wal import Identity

URL = "http://{name}.etcd.shop.svc:2380"


def member(number: int, *, started: bool = True, learner: bool = False, id_: int = 0) -> MemberInfo:
    name = f"demo-etcd-{number}"
    urls = ("http://client",) if started else ()
    shown = name if started else ""
    return MemberInfo(id_ or 0x100 + number, shown, (URL.format(name=name),), urls, learner)


def listed(*members: MemberInfo) -> MemberList:
    return MemberList(7, members)


FRESH = Seen(
    name="demo-etcd-0",
    peer_url=URL.format(name="demo-etcd-0"),
    own_data=False,
    identity=None,
    members=None,
    is_agreed=False,
    others={"demo-etcd-1": Data.EMPTY, "demo-etcd-2": Data.EMPTY},
    replaces_lost=False,
)
WITH_DATA = replace(FRESH, own_data=True, identity=Identity(0x100, 7), others={})
THREE = listed(member(0), member(1), member(2))


def test_a_cluster_begins_when_every_member_says_that_it_is_empty() -> None:
    assert decide(FRESH) == deciding.Begin()


@pytest.mark.parametrize("data", [Data.UNKNOWN, Data.PRESENT])
def test_an_empty_member_waits_while_another_one_may_have_data(data: Data) -> None:
    decision = decide(replace(FRESH, others={**FRESH.others, "demo-etcd-2": data}))
    assert isinstance(decision, deciding.Wait)
    assert "demo-etcd-2" in decision.why


def test_who_has_data_starts_also_when_nobody_answers() -> None:
    assert decide(WITH_DATA) == deciding.Start()


def test_who_has_data_and_is_a_member_starts() -> None:
    assert decide(replace(WITH_DATA, members=THREE, is_agreed=True)) == deciding.Start()


def test_data_that_does_not_tell_whose_it_is_is_left_to_etcd() -> None:
    seen = replace(WITH_DATA, members=THREE, is_agreed=True, identity=None)
    assert decide(seen) == deciding.Start()


def test_data_of_a_removed_member_is_discarded_only_when_a_quorum_says_so() -> None:
    seen = replace(WITH_DATA, members=listed(member(1), member(2)), is_agreed=True)
    assert decide(seen) == deciding.Discard(0x100)
    assert isinstance(decide(replace(seen, is_agreed=False)), deciding.Wait)


def test_data_of_another_cluster_stops_the_member() -> None:
    seen = replace(WITH_DATA, identity=Identity(0x100, 8), members=THREE, is_agreed=True)
    decision = decide(seen)
    assert isinstance(decision, deciding.Stop)
    assert "another cluster" in decision.why


def test_a_member_that_lost_its_data_stops_and_says_what_to_do() -> None:
    decision = decide(replace(FRESH, members=THREE, is_agreed=True, others={}))
    assert isinstance(decision, deciding.Stop)
    assert "etcd.autoReplaceMember=true" in decision.why
    assert "etcdctl member remove 100" in decision.why


def test_a_member_that_lost_its_data_is_replaced_where_that_is_wanted_and_agreed() -> None:
    seen = replace(FRESH, members=THREE, is_agreed=True, others={}, replaces_lost=True)
    assert decide(seen) == deciding.Replace(0x100)
    assert isinstance(decide(replace(seen, is_agreed=False)), deciding.Wait)


def test_a_member_beyond_the_list_is_added() -> None:
    seen = replace(FRESH, name="demo-etcd-3", peer_url=URL.format(name="demo-etcd-3"))
    assert decide(replace(seen, members=THREE, is_agreed=True)) == deciding.Add()
    assert isinstance(decide(replace(seen, members=THREE)), deciding.Wait)


def test_a_member_that_was_added_and_never_started_joins() -> None:
    members = (member(0, started=False), member(1), member(2))
    decision = decide(replace(FRESH, members=listed(*members)))
    assert decision == deciding.Join(members)


def test_members_are_written_as_etcd_wants_them() -> None:
    assert initial_cluster({"a": "http://a:1", "b": "http://b:1"}) == "a=http://a:1,b=http://b:1"


def pod(told: str | None, state: dict[str, object], restarts: int = 0) -> dict[str, Any]:
    annotations = {} if told is None else {"leader-sidecar.io/etcd-data": told}
    container = {"name": "etcd", "restartCount": restarts, "state": state}
    return {"metadata": {"annotations": annotations}, "status": {"containerStatuses": [container]}}


@pytest.mark.parametrize(
    ("told", "state", "restarts", "data"),
    [
        (None, {"waiting": {}}, 0, Data.UNKNOWN),
        ("empty", {"waiting": {}}, 0, Data.EMPTY),
        ("present", {"waiting": {}}, 0, Data.PRESENT),
        ("empty", {"running": {}}, 0, Data.PRESENT),
        ("empty", {"terminated": {}}, 0, Data.PRESENT),
        ("empty", {"waiting": {}}, 1, Data.PRESENT),
        (None, {"running": {}}, 0, Data.PRESENT),
    ],
)
def test_a_pod_in_which_etcd_has_run_has_data_whatever_it_said(
    told: str | None, state: dict[str, object], restarts: int, data: Data
) -> None:
    assert data_of(pod(told, state, restarts)) is data


def test_who_was_seen_empty_by_one_that_began_may_follow_it_and_nobody_else() -> None:
    began: dict[str, Any] = pod("empty", {"running": {}})
    began["metadata"]["annotations"]["leader-sidecar.io/etcd-began-with"] = "uid-1,uid-2"
    assert data_of(began, "uid-2") is Data.EMPTY
    assert data_of(began, "uid-3") is Data.PRESENT  # a later pod, whose volume may be lost
    assert data_of(began) is Data.PRESENT


def test_nothing_is_known_of_a_pod_that_is_gone_or_going() -> None:
    assert data_of(None) is Data.UNKNOWN
    going = {"metadata": {"deletionTimestamp": "x", "annotations": {}}}
    assert data_of(going) is Data.UNKNOWN


def test_the_highest_ordinal_goes_first_and_nobody_below_the_number() -> None:
    members = [member(4), member(0), member(3, started=False), member(1)]
    assert next_to_remove(members, "demo-etcd", 3) == (4, members[0])
    assert next_to_remove(members[1:], "demo-etcd", 3) == (3, members[2])
    assert next_to_remove([member(0), member(1)], "demo-etcd", 3) is None
    assert next_to_remove([member(9)], "other", 3) is None


def test_the_tenth_member_is_above_the_ninth() -> None:
    assert next_to_remove([member(9), member(10)], "demo-etcd", 3) == (10, member(10))


def test_only_an_own_learner_is_promoted() -> None:
    learner = member(1, learner=True)
    assert own_learner([member(0), learner], learner.peer_urls[0]) == learner
    assert own_learner([member(0), learner], member(0).peer_urls[0]) is None


ELECTION = "/leader-sidecar/shop/demo"
WANTED = (User("root"), User("sidecar", frozenset({election_grant(ELECTION)})))
NOTHING = Rights({}, {}, is_on=False)


def test_an_election_needs_exactly_its_range() -> None:
    first, end = f"{ELECTION}.control/", f"{ELECTION}0"
    assert election_grant(ELECTION) == Grant(first.encode(), end.encode())


def test_a_prefix_ends_before_the_next_one() -> None:
    assert prefix_grant("/crawler/") == Grant(b"/crawler/", b"/crawler0")


def test_users_come_before_authentication_is_switched_on() -> None:
    made = changes(WANTED, NOTHING)
    assert made[-1] == rights.Enable()
    assert rights.GiveRole("root", "root") in made
    assert rights.Allow("sidecar", election_grant(ELECTION)) in made
    assert made.count(rights.Enable()) == 1


AS_WANTED = Rights(
    {"root": frozenset({"root"}), "sidecar": frozenset({"sidecar"}), "theirs": frozenset()},
    {"root": frozenset(), "sidecar": frozenset({election_grant(ELECTION)}), "theirs": frozenset()},
    is_on=True,
)


def test_what_is_as_wanted_is_not_written() -> None:
    assert changes(WANTED, AS_WANTED) == ()


def test_only_what_differs_is_written() -> None:
    leftover = Grant(b"a", b"b")
    roles = {**AS_WANTED.roles, "sidecar": frozenset({leftover})}
    made = changes(WANTED, replace(AS_WANTED, roles=roles))
    assert made == (
        rights.Forbid("sidecar", leftover),
        rights.Allow("sidecar", election_grant(ELECTION)),
    )


def test_a_range_in_another_mode_is_granted_anew_and_not_taken_back() -> None:
    wanted = election_grant(ELECTION)
    read_only = Grant(wanted.key, wanted.end, is_read_only=True)
    roles = {**AS_WANTED.roles, "sidecar": frozenset({read_only})}
    assert changes(WANTED, replace(AS_WANTED, roles=roles)) == (rights.Allow("sidecar", wanted),)


def test_a_wrong_password_is_changed() -> None:
    user = User("root", password="new")  # noqa: S106 - not one
    found = replace(AS_WANTED, wrong_passwords=frozenset({"root"}))
    assert changes((user,), found) == (rights.ChangePassword(user),)
    assert "new" not in repr(user)


def rolled(*revisions: str, leader: int | None = 0, unready: tuple[int, ...] = ()) -> State:
    pods = tuple(
        Pod(f"demo-{n}", f"uid-{n}", revision, n not in unready)
        for n, revision in enumerate(revisions)
    )
    name = None if leader is None else f"demo-{leader}"
    return State(len(revisions), "new", pods, name, frozenset(pod.name for pod in pods))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_a_rollout_changes_the_leader_once_from_whoever_leads(start: int) -> None:
    revisions, leader, handovers = ["old"] * 3, start, 0
    for _ in range(10):
        match next_step(rolled(*revisions, leader=leader)):
            case rolling.Delete(pod):
                assert pod.name != f"demo-{leader}"
                revisions[int(pod.name[-1])] = "new"
            case rolling.HandOver(to):
                assert revisions[int(to[-1])] == "new"
                leader, handovers = int(to[-1]), handovers + 1
            case rolling.Done():
                break
            case step:
                raise AssertionError(step)
    assert revisions == ["new"] * 3
    assert handovers == 1


def test_a_rollout_takes_nobody_away_while_a_new_pod_is_not_ready() -> None:
    assert isinstance(next_step(rolled("old", "old", "new", unready=(2,))), rolling.Wait)


def test_a_rollout_waits_for_a_pod_that_is_missing() -> None:
    state = replace(rolled("old", "old"), replicas=3)
    assert isinstance(next_step(state), rolling.Wait)


def test_a_rollout_replaces_an_old_pod_that_is_not_ready_first() -> None:
    step = next_step(rolled("old", "old", "old", unready=(1,)))
    assert isinstance(step, rolling.Delete)
    assert step.pod.name == "demo-1"


def test_a_rollout_waits_while_nobody_leads() -> None:
    assert isinstance(next_step(rolled("old", "old", "old", leader=None)), rolling.Wait)


def test_a_lone_leader_is_replaced_without_a_handover() -> None:
    assert isinstance(next_step(rolled("old")), rolling.Delete)


def test_a_rollout_waits_for_an_heir_that_stands() -> None:
    state = replace(rolled("old", "new", "new"), candidates=frozenset({"demo-0"}))
    assert isinstance(next_step(state), rolling.Wait)


def test_a_rollout_of_what_is_new_already_is_done() -> None:
    assert next_step(rolled("new", "new")) == rolling.Done()
    assert isinstance(next_step(replace(rolled("new"), revision="")), rolling.Wait)


def test_helm_test_wants_one_leader_that_all_name() -> None:
    def status(name: str, role: str, leader: str | None) -> dict[str, object]:
        return {"id": name, "role": role, "leader": leader and {"id": leader}}

    good = [status("a", "leader", "a"), status("b", "follower", "a")]
    assert verdict(good, 2) is None
    assert "1 of 2" in (verdict(good[:1], 2) or "")
    assert "0 lead" in (verdict([status("a", "follower", None)], 1) or "")
    assert "2 lead" in (verdict([good[0], status("b", "leader", "b")], 2) or "")
    assert "named" in (verdict([good[0], status("b", "follower", "c")], 2) or "")
