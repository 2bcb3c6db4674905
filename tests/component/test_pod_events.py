"""Events of the own pod against an HTTPS server that behaves like the API server."""

import asyncio

import pytest

from sidecar.kube import events, pod
from tests.support.kube_api import KubeApi
from tests.support.outputs import until
from tests.support.own_pod import telling

pytestmark = pytest.mark.asyncio


def reasons(api: KubeApi) -> list[str]:
    return [f"{one['reason']} {one['type']}" for one in api.events]


async def test_each_transition_is_one_event(api: KubeApi) -> None:
    async with telling(api) as rig:
        rig.lead(100)
        rig.lead(100)
        rig.step_down()
        await until(lambda: len(api.events) == 2, "both are told")
        await rig.pod.finish()
    assert reasons(api) == ["LeaderElected Normal", "SteppedDown Normal"]
    assert api.events[0]["involvedObject"]["uid"] == api.uid
    assert "fencing token 100" in api.events[0]["message"]


async def test_an_event_whose_answer_was_lost_is_there_once(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.cut("POST", "after")
        rig.lead(100)
        await until(lambda: api.count("POST", "/events") == 2, "it is sent twice")
        await rig.pod.finish()
    assert reasons(api) == ["LeaderElected Normal"]
    assert rig.failures == ["pod_event"]  # the repeat is none


async def test_an_event_that_may_not_be_created_is_dropped(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.deny(("create", "events"))
        rig.lead(100)
        await until(lambda: "pod_event" in rig.failures, "it is told")
        await rig.pod.finish()
        api.deny()
        rig.step_down()
        await until(lambda: len(api.events) == 1, "the next one is sent")
        assert api.count("POST", "/events") == 2


async def test_an_event_is_given_up_after_some_tries(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        api.refuse("POST", 503, times=4)
        rig.lead(100)
        await until(lambda: rig.failures.count("pod_event") == 4, "it is given up")
        rig.step_down()
        await until(lambda: len(api.events) == 1, "the next one is sent")
    assert reasons(api) == ["SteppedDown Normal"]


async def test_an_event_that_hangs_does_not_delay_the_label(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        with api.holding("POST"):
            rig.lead(100)
            await rig.shows("leader", "100", "1000")


async def test_an_event_lets_the_label_go_first(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "_LABEL_FIRST", 60.0)
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        with api.holding("PATCH") as hold:
            rig.lead(100)
            await asyncio.to_thread(hold.wait)
            await asyncio.sleep(0.2)  # longer than sending an Event takes
            assert api.count("POST", "/events") == 0
            hold.let_go()
        await until(lambda: len(api.events) == 1, "it is told all the same")


async def test_an_event_does_not_wait_for_a_label_that_hangs(api: KubeApi) -> None:
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        with api.holding("PATCH") as hold:
            rig.lead(100)
            await asyncio.to_thread(hold.wait)
            await until(lambda: len(api.events) == 1, "it is told without the label")
            hold.let_go()


async def test_an_event_lets_others_go_first_but_not_when_the_sidecar_ends(
    api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_LET_OTHERS", 60.0)
    async with telling(api) as rig:
        await rig.shows("follower", None, None)
        rig.lead(100)
        await rig.shows("leader", "100", "1000")
        await asyncio.sleep(0.2)  # longer than sending an Event takes
        assert api.events == []
        await rig.pod.finish()
        assert len(api.events) == 1
