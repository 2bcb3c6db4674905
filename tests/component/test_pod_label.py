"""The pod's label against an HTTPS server that behaves like the API server."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from tests.support.kube_api import KubeApi
from tests.support.outputs import until
from tests.support.own_pod import telling
from tests.support.tls import Authority

pytestmark = pytest.mark.asyncio


async def test_the_pod_shows_each_change_of_the_role(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        rig.lead(8123)
        await rig.shows("leader", "8123", "1000")
        rig.step_down()
        await rig.shows("follower", "8123", None)
        rig.lead(8200)
        await rig.shows("leader", "8200", "1000")
    assert api.pod["metadata"]["labels"]["app"] == "demo"
    assert rig.failures == []


async def test_all_of_it_goes_over_one_connection_kept_open(api: KubeApi) -> None:
    async with telling(api) as rig:
        for token in range(100, 110):
            rig.lead(token)
            await rig.shows("leader", str(token), "1000")
            rig.step_down()
            await rig.shows("follower", str(token), None)
    pods = {one.connection for one in api.requests if "/pods/" in one.path}
    assert len(pods) == 1
    assert api.count("GET") == 1  # the version is known from the answer before


async def test_renewals_cause_no_requests(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        await until(lambda: rig.patches("patched"), "the patch is counted")
        before = api.count("PATCH")
        for _ in range(20):
            rig.lead()
            await asyncio.sleep(0)
        rig.step_down()
        await rig.shows("follower", "8123", None)
        assert api.count("PATCH") == before + 1


async def test_a_late_patch_of_an_older_term_changes_nothing(api: KubeApi) -> None:
    """It hangs before it takes effect, is given up, and lands after the step-down was told."""
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        with api.holding("PATCH") as hold:
            rig.lead(8123)
            await asyncio.to_thread(hold.wait)
            rig.step_down()
            await rig.shows("follower", "8123", None)
            version = api.pod["metadata"]["resourceVersion"]
            await asyncio.to_thread(hold.let_go)
        assert api.marks == ("follower", "8123", None)
        assert api.pod["metadata"]["resourceVersion"] == version
    assert rig.patches("unanswered") == 1


async def test_a_late_patch_never_overwrites_the_term_after_it(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead(100)
        await rig.shows("leader", "100", "1000")
        with api.holding("PATCH") as hold:
            rig.step_down()
            await asyncio.to_thread(hold.wait)
            rig.lead(120)
            await rig.shows("leader", "120", "1000")
            await asyncio.to_thread(hold.let_go)
        assert api.marks == ("leader", "120", "1000")


async def test_a_patch_that_lands_between_reading_and_writing_wins_nothing(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        with api.holding("PATCH") as late:
            rig.lead(100)
            await asyncio.to_thread(late.wait)
            with api.holding("PATCH") as second:
                rig.step_down()
                await asyncio.to_thread(second.wait)
                await asyncio.to_thread(late.let_go)
                assert api.marks == ("leader", "100", "1000")
                await asyncio.to_thread(second.let_go)
            await rig.shows("follower", "100", None)


async def test_a_lost_answer_is_made_good_by_a_look(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.cut("PATCH", "after")
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        rig.step_down()
        await rig.shows("follower", "8123", None)


async def test_a_cut_request_is_sent_again(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.cut("PATCH", "before")
        api.cut("PATCH", "before")
        rig.lead()
        await rig.shows("leader", "8123", "1000")


async def test_an_idle_connection_that_was_ended_costs_nothing(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.hang_up()
        rig.lead()
        await rig.shows("leader", "8123", "1000")
    assert rig.failures == []


async def test_what_others_write_to_the_pod_is_read_and_kept(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        await until(lambda: rig.patches("patched") == 1, "the answer is in")
        api.mark()  # as the kubelet does, with every change of the status
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        await until(lambda: rig.patches("patched") == 2, "the answer is in")
    assert rig.patches("conflict") == 1
    assert rig.failures == []


async def test_another_pod_of_the_name_is_left_alone(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.make_pod()
        rig.lead()
        await until(lambda: rig.failures, "it is told")
        rig.step_down()
    assert api.marks == (None, None, None)
    assert rig.failures == ["pod_label"]


async def test_without_a_uid_the_first_pod_found_is_ours(api: KubeApi) -> None:
    async with telling(api, uid="") as rig:
        await rig.shows("follower", None, None)
        api.make_pod()
        rig.lead()
        await until(lambda: rig.failures, "it is told")
    assert api.marks == (None, None, None)


async def test_a_leader_leaves_a_larger_term_as_it_is(api: KubeApi) -> None:
    api.mark(role="follower", term="9000")
    async with telling(api) as rig:
        rig.lead(8123)
        await until(lambda: rig.failures, "it is told")
        assert api.marks == ("follower", "9000", None)
        rig.lead(9001)
        await rig.shows("leader", "9001", "1000")


async def test_after_a_token_reset_a_leader_takes_the_label_over(api: KubeApi) -> None:
    api.mark(role="follower", term="9000")
    async with telling(api, may_shrink=True) as rig:
        rig.lead(8123)
        await rig.shows("leader", "8123", "1000")


async def test_what_a_predecessor_left_is_cleared_at_the_start(api: KubeApi) -> None:
    api.mark(role="leader", term="9000")
    async with telling(api) as rig:
        await rig.shows("follower", "9000", None)


async def test_a_label_that_somebody_changed_is_put_right(api: KubeApi) -> None:
    """It looks again by itself, a second after the start for the first time."""
    async with telling(api) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        api.mark(role="follower")
        await rig.shows("leader", "8123", "1000")


async def test_the_end_of_a_term_is_told_when_nobody_publishes_it(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead(seconds=1.0)
        await rig.shows("leader", "8123", "1000")
        await rig.shows("follower", "8123", None)


async def test_a_rotated_token_is_used_from_the_next_request_on(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.rotate("token-2")
        rig.lead()
        await rig.shows("leader", "8123", "1000")
    assert rig.failures == []
    assert {one.token for one in api.requests if one.method == "PATCH"} == {"token-1", "token-2"}


async def test_a_token_that_is_not_accepted_is_waited_out(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.revoke_tokens()
        rig.lead()
        await until(lambda: rig.patches("unauthorized"), "it is refused")
        api.rotate("token-3")
        await rig.shows("leader", "8123", "1000")


async def test_a_token_that_is_gone_for_a_while_is_waited_for(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        (api.account / "token").unlink()
        rig.lead()
        await until(lambda: rig.failures, "it is told")
        api.rotate("token-4")
        await rig.shows("leader", "8123", "1000")


async def test_the_server_is_given_the_time_it_asks_for(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.refuse("PATCH", 429, headers={"Retry-After": "1"})
        rig.lead()
        await until(lambda: rig.patches("throttled"), "it is throttled")
        rig.step_down()  # news are no reason to come sooner
        await rig.shows("follower", "8123", None)
    refused, after = [one.at for one in api.requests if "/pods/" in one.path][-3:-1]
    assert after - refused >= 1.0


async def test_a_server_that_fails_is_tried_again(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.refuse("PATCH", 503, times=3)
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        await until(lambda: rig.patches("patched") == 2, "the answer is in")
    assert rig.patches("unavailable") == 3
    assert rig.failures == ["pod_label"] * 3
    assert rig.value("label_delay_seconds_count") == 2


async def test_a_server_that_was_down_shows_what_is_true_afterwards(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead(100)
        await rig.shows("leader", "100", "1000")
        api.stop()
        rig.step_down()
        rig.lead(120)
        rig.step_down()
        await until(lambda: rig.failures, "it is told")
        api.start()
        await rig.shows("follower", "120", None)


async def test_a_server_of_another_authority_is_told_nothing(api: KubeApi, tmp_path: Path) -> None:
    right = (api.account / "ca.crt").read_bytes()
    (api.account / "ca.crt").write_bytes(Authority(tmp_path, "foreign").cert.read_bytes())
    async with telling(api) as rig:
        await until(lambda: rig.failures, "it is told")
        assert api.requests == []
        (api.account / "ca.crt").write_bytes(right)
        await rig.shows("follower", None, None)


async def test_answers_may_come_in_chunks(api: KubeApi) -> None:
    api.chunked = True
    async with telling(api) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
    assert rig.failures == []


async def test_missing_permissions_are_all_told_once(
    api: KubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sidecar")
    api.deny(("get", "pods"), ("patch", "pods"), ("create", "events"))
    async with telling(api) as rig:
        await until(lambda: rig.failures.count("pod_label") >= 3, "it goes on trying")
        warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
        assert len(warnings) == 2
        assert "may not get pods nor patch pods in namespace shop" in warnings[0]
        assert "may not create events in namespace shop" in warnings[1]
        api.deny()
        await rig.shows("follower", None, None)
    assert "output works again output=pod_label" in caplog.text


async def test_a_permission_taken_away_later_is_told_by_verb_and_resource(
    api: KubeApi, caplog: pytest.LogCaptureFixture
) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.deny(("patch", "pods"))
        rig.lead()
        await until(lambda: rig.patches("forbidden"), "it is refused")
        await until(lambda: "patch pods: 403" in caplog.text, "it is told")


async def test_a_pod_that_is_gone_is_looked_for_again(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.remove_pod()
        rig.lead()
        await until(lambda: rig.patches("not_found"), "it is not found")


async def test_settling_waits_for_the_label(api: KubeApi) -> None:
    async with telling(api, drain=60.0) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        rig.step_down()
        await rig.pod.settle()
        assert api.marks == ("follower", "8123", None)


async def test_settling_waits_no_longer_than_the_drain_and_300_ms(api: KubeApi) -> None:
    for drain, least in ((60.0, 0.3), (0.1, 0.1)):
        async with telling(api, drain=drain) as rig:
            rig.lead()
            await rig.shows("leader", "8123", "1000")
            with api.holding("PATCH"):
                rig.step_down()
                began = time.monotonic()
                await rig.pod.settle()
                assert api.marks == ("leader", "8123", "1000")
                assert time.monotonic() - began >= 0.99 * least
        api.make_pod()


async def test_without_a_drain_settling_does_not_wait_at_all(api: KubeApi) -> None:
    async with telling(api, drain=0.0) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        rig.step_down()
        with pytest.raises(StopIteration):  # done without a single turn of the loop
            rig.pod.settle().send(None)


async def test_a_hung_leader_patch_keeps_the_pod_from_being_settled(api: KubeApi) -> None:
    async with telling(api, drain=60.0) as rig:
        await rig.shows("follower", None, None)
        await until(lambda: rig.patches("patched"), "the answer is in")
        with api.holding("PATCH") as hold:
            rig.lead()
            await asyncio.to_thread(hold.wait)
            rig.step_down()
            await rig.pod.settle()
            # Whatever is given up now, a later patch has made the hung one void.
            assert api.marks == ("follower", "8123", None)


async def test_at_the_end_half_a_second_is_left_for_what_is_not_told_yet(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead()
        await rig.shows("leader", "8123", "1000")
        with api.holding("PATCH"):
            rig.step_down()
            began = time.monotonic()
            await rig.pod.finish()
            assert api.marks == ("leader", "8123", "1000")
            assert time.monotonic() - began >= 0.99 * 0.5
        await rig.shows("follower", "8123", None)
        await rig.pod.finish()
