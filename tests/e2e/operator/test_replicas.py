"""Two replicas: one works, and the other takes over, whatever becomes of the first."""

import subprocess
import time

import pytest

from tests.e2e.operator.shop import Shop
from tests.support.etcd_cluster import EtcdCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def one(shop: Shop) -> Shop:
    """One candidate."""
    shop.pod("m-0")
    shop.pod("m-1")
    shop.make()
    shop.candidates("m-0", "m-1")
    return shop


def test_a_replica_that_is_told_to_stop_ends_at_once_and_the_other_goes_on(one: Shop) -> None:
    first = one.operator("op-0")
    one.until(lambda: first.leads, "the first leads")
    second = one.operator("op-1")
    one.until(lambda: second.get("/readyz")[0] == 200, "the second is up")
    assert not second.leads
    assert first.child.terminate() == 0
    one.until(lambda: second.leads, "the second leads")
    one.team.command("handover", "--to", "m-1")
    one.wait_for_leader("m-1")
    assert "Traceback" not in first.child.text("err")


def test_a_replica_that_is_killed_is_followed_by_the_other(one: Shop) -> None:
    first = one.operator("op-0")
    one.until(lambda: first.leads, "the first leads")
    second = one.operator("op-1")
    one.until(lambda: second.get("/readyz")[0] == 200, "the second is up")
    first.child.kill()
    one.team.command("handover", "--to", "m-1")
    one.wait_for_leader("m-1")
    assert second.leads


def test_a_replica_that_was_frozen_ends_and_writes_nothing_more(one: Shop) -> None:
    first = one.operator("op-0")
    one.until(lambda: first.leads, "the first leads")
    second = one.operator("op-1")
    one.until(lambda: second.get("/readyz")[0] == 200, "the second is up")
    first.child.pause()
    one.until(lambda: second.leads, "the second leads")
    one.team.command("handover", "--to", "m-1")
    one.wait_for_leader("m-1")
    version = one.server.admin.get(one.election_path)["metadata"]["resourceVersion"]
    first.child.resume()
    assert first.child.wait() == 1
    assert one.server.admin.get(one.election_path)["metadata"]["resourceVersion"] == version


def test_a_replica_whose_watches_end_by_themselves_ends_and_the_other_goes_on(one: Shop) -> None:
    first = one.operator("op-0", module="tests.e2e.operator.deaf")
    assert first.child.wait() == 1
    assert "watching has failed; giving leadership up" in first.child.text("err")
    second = one.operator("op-1")
    one.wait_for_leader("m-0")
    assert second.leads


STUCK = "tests.e2e.operator.stuck"
SPACE = ("unshare", "--user", "--map-user=65532", "--map-group=65532")


def test_a_term_that_is_lost_ends_the_process_also_where_its_thread_does_not_end(
    one: Shop, etcd: EtcdCluster
) -> None:
    replica = one.operator("op-0", module=STUCK)
    one.until(lambda: replica.leads, "it leads")
    (member,) = etcd.members
    member.pause()
    try:
        assert replica.child.wait() == 1
    finally:
        member.resume()
    assert "has not ended in 0.5 s; ending the process" in replica.child.text("err")


def test_a_replica_that_is_told_to_stop_ends_also_where_its_thread_does_not(one: Shop) -> None:
    replica = one.operator("op-0", module=STUCK)
    lists = "leader_sidecar_operator_api_requests_total"
    one.until(lambda: replica.metric(lists, resource="pods", code="200"), "it begins to watch")
    began = time.monotonic()
    assert replica.child.terminate() == 0
    assert time.monotonic() - began < 10.0
    assert "has not ended in 5.0 s; ending the process" in replica.child.text("err")
    # Nobody else led meanwhile: the lease ends by itself.
    assert "key given up" not in replica.child.text("err")


def test_elections_go_on_without_any_operator(one: Shop) -> None:
    first, second = one.operator("op-0"), one.operator("op-1")
    one.until(lambda: first.leads or second.leads, "one leads")
    first.child.kill()
    second.child.kill()
    assert one.team.command("handover", "--to", "m-1").returncode == 0
    again = one.operator("op-2")
    one.wait_for_leader("m-1")
    assert again.leads


def test_the_api_server_away_changes_nothing_in_elections_and_is_caught_up(one: Shop) -> None:
    replica = one.operator("op-0")
    one.wait_for_leader("m-0")
    one.server.child.pause()
    try:
        assert one.team.command("handover", "--to", "m-1").returncode == 0
    finally:
        one.server.child.resume()
    one.wait_for_leader("m-1")
    one.until(lambda: one.role("m-1") == "leader", "labelled")
    assert replica.child.running


def test_a_replica_that_is_killed_in_a_handover_leaves_one_change_behind(one: Shop) -> None:
    first = one.operator("op-0")
    one.until(lambda: first.leads, "the first leads")
    second = one.operator("op-1")
    one.wait_for_readiness(second)
    one.server.kubectl(
        "annotate", "elect", "master", "leader-sidecar.io/handover-to=m-1", "-n", one.namespace
    )
    first.child.wait_for_line(r"handover election=master", stream="err")
    first.child.kill()
    one.wait_for_leader("m-1")

    def is_off() -> bool:
        metadata = one.server.admin.get(one.election_path)["metadata"]
        return "leader-sidecar.io/handover-to" not in (metadata.get("annotations") or {})

    one.until(is_off, "the second replica takes the annotation off")
    one.until(lambda: one.status.get("move", {}).get("result") == "Done", "it is told")
    assert one.status["transitions"] == 2


def test_its_user_needs_no_name_as_in_a_container(one: Shop) -> None:
    if subprocess.run([*SPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a user without a name needs a namespace of users")
    user = ("env", *(f"--unset={name}" for name in ("LOGNAME", "USER", "LNAME", "USERNAME")))
    replica = one.operator("op-0", prefix=(*user, *SPACE))
    one.wait_for_leader("m-0")
    assert replica.leads
