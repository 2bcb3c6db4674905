from sidecar.core.state import ElectionState, Leader, Link, Reason, Role

LEADS = ElectionState(
    "/e",
    "a",
    role=Role.LEADER,
    token=5,
    key="/e/1",
    deadline=100.0,
    leader=Leader("a", "", 5, "/e/1"),
    since=7.0,
    reason=Reason.ELECTED,
    link=Link.CONNECTED,
)


def test_a_snapshot_says_leader_only_before_its_deadline() -> None:
    assert LEADS.is_leader(99.9)
    assert LEADS.at(99.9) is LEADS
    assert not LEADS.is_leader(100.0)


def test_past_its_deadline_a_leader_is_a_suspended_follower_that_knows_no_leader() -> None:
    late = LEADS.at(100.0)
    assert (late.role, late.link, late.reason) == (
        Role.FOLLOWER,
        Link.SUSPENDED,
        Reason.DEADLINE_PASSED,
    )
    assert (late.token, late.key, late.leader) == (0, "", None)
    assert late.since == LEADS.since


def test_a_follower_stays_what_it_is() -> None:
    follower = ElectionState("/e", "a")
    assert follower.at(1e9) is follower
    assert not follower.is_leader(0.0)
