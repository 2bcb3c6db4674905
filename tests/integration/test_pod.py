"""Whole sidecars that label their pod, on an HTTPS server that behaves like the API server."""

import datetime as dt
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.support import LONG, Sidecar, Team
from tests.support.kube_api import KubeApi
from tests.support.procs import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    with KubeApi(tmp_path) as made:
        yield made


def shows(api: KubeApi, role: str, token: int | None) -> None:
    wanted = (role, token and str(token), "1000" if role == "leader" else None)
    wait_until(lambda: api.marks == wanted, f"the pod shows {wanted}", LONG)


def metric(sidecar: Sidecar, name: str) -> float:
    body = sidecar.get("/metrics")[1]
    found = re.search(rf"^leader_election_{name}(?:{{[^}}]*}})? (\S+)$", body, re.MULTILINE)
    assert found, body
    return float(found[1])


def test_a_pod_tells_its_terms_from_election_to_exit(api: KubeApi, team: Team) -> None:
    a = team.add("a", "--drain=1s", env=api.environment)
    team.launch(a)
    token = a.token
    shows(api, "leader", token)
    wait_until(lambda: metric(a, "pod_label_delay_seconds_count"), "it is counted", LONG)
    assert a.terminate() == 0
    assert api.marks == ("follower", str(token), None)
    assert [one["reason"] for one in api.events] == ["LeaderElected", "SteppedDown"]


def test_the_label_says_follower_before_the_next_one_leads(api: KubeApi, team: Team) -> None:
    a = team.add("a", "--drain=500ms", env=api.environment)
    b = team.add("b")
    team.launch(a, b)
    shows(api, "leader", a.token)
    assert team.command("handover").returncode == 0
    b.wait_for("leader")
    assert api.marks[0] == "follower"


def at(line: str) -> float:
    """Return when a line was logged."""
    return dt.datetime.fromisoformat(line.split(maxsplit=1)[0]).timestamp()


def test_an_api_server_that_hangs_delays_the_next_leader_by_300_ms(
    api: KubeApi, team: Team
) -> None:
    a = team.add("a", "--drain=1s", "--log-level=debug", env=api.environment)
    b = team.add("b")
    team.launch(a, b)
    shows(api, "leader", a.token)
    with api.holding("PATCH"), api.holding("GET"):
        assert team.command("handover").returncode == 0
        b.wait_for("leader")
        assert api.marks[0] == "leader"  # it was not waited for beyond that
    told, given_up = a.wait_for_log("step down token"), a.wait_for_log("key given up")
    assert at(given_up) - at(told) >= 1.2  # the drain and 300 ms, less what the log may lag
    wait_until(lambda: api.marks[0] == "follower", "it is told at last", LONG)


def test_without_an_api_server_it_leads_and_tells_later(api: KubeApi, team: Team) -> None:
    api.stop()
    a = team.add("a", env=api.environment)
    team.launch(a)
    assert a.says_everywhere("leader")
    a.wait_for_log("output failed output=pod_label")
    api.start()
    shows(api, "leader", a.token)
    a.wait_for_log("output works again output=pod_label")


def test_a_frozen_leader_labels_itself_a_follower_when_it_wakes(api: KubeApi, team: Team) -> None:
    a, b = team.add("a", env=api.environment), team.add("b")
    team.launch(a, b)
    token = a.token
    shows(api, "leader", token)
    a.child.pause()
    b.wait_for("leader")
    api.mark(role="follower")  # as an operator puts it right meanwhile
    a.child.resume()
    shows(api, "follower", token)
    assert b.leadership.is_leader()


def test_a_restart_within_the_ttl_keeps_the_label(api: KubeApi, team: Team) -> None:
    a = team.add("a", ttl=10, env=api.environment)
    team.launch(a)
    token = a.token
    shows(api, "leader", token)
    a.kill()
    before = len([one for one in api.requests if one.method == "PATCH"])
    a.start()
    a.wait_for_log("change to leader .*reason=resumed")
    asked = api.count("GET")
    wait_until(lambda: api.count("GET") > asked, "it looks again", LONG)
    assert a.token == token
    assert api.marks == ("leader", str(token), "1000")
    assert len([one for one in api.requests if one.method == "PATCH"]) == before


def test_missing_permissions_stand_in_the_log_once(api: KubeApi, team: Team) -> None:
    api.deny(("patch", "pods"))
    a = team.add("a", env=api.environment)
    team.launch(a)
    line = a.wait_for_log("WARNING .*output failed output=pod_label")
    assert "may not patch pods in namespace shop" in line
    wait_until(lambda: 'output="pod_label"} ' in a.get("/metrics")[1], "it is counted", LONG)
    assert a.says_everywhere("leader")


def test_no_label_where_it_is_not_wanted(api: KubeApi, team: Team) -> None:
    a = team.add("a", "--label=false", env=api.environment)
    team.launch(a)
    assert api.requests == []
    assert "leader_election_pod_" not in a.get("/metrics")[1]


def test_a_label_without_a_pod_ends_the_start(api: KubeApi, team: Team) -> None:
    a = team.add("a", "--label", f"--service-account-dir={api.account / 'none'}").start()
    assert a.child.wait() == 2
    assert len([line for line in a.log if line.count("--label cannot be done")]) == 5
