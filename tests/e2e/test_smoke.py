"""The shortest way through a release: install, look, fail over under load, uninstall."""

import json
import re
import urllib.request

import pytest

from tests.e2e.support.load import load
from tests.e2e.support.release import Release, Values
from tests.support.procs import Child, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {}
RESOURCES = "http://demo:8081/resources"


def test_one_of_three_leads_after_the_install(release: Release) -> None:
    leader = release.settled()
    assert len(release.pods()) == 3
    (term,) = release.history()
    assert (term["leader"], term["token"]) == (leader.pod, leader.token)


def test_deleting_the_leaders_pod_under_load_costs_no_request(release: Release) -> None:
    before = release.settled()
    with load(release.kubectl, release.image, RESOURCES) as requests:
        release.kubectl.run("delete", "pod", before.pod)
        after = release.changed_from(before)
        tally = requests.goes_on()
    assert tally.failures == 0, str(tally)
    assert len(tally.served_by) == 2, str(tally)
    release.settled()
    *_, ended, running = release.history()
    assert release.changes_since(before) == 1
    assert (ended["leader"], ended["reason"]) == (before.pod, "retired")
    assert (running["leader"], running["token"]) == (after.pod, after.token)


def test_the_leader_is_seen_through_a_forwarded_port(release: Release) -> None:
    leader = release.settled()
    with release.kubectl.child(
        "port-forward", "service/demo-leader", ":4040", name="port-forward"
    ) as forwarding:
        port = _forwarded_port(forwarding)
        base = f"http://127.0.0.1:{port}"
        assert json.loads(_get(f"{base}/leader"))["id"] == leader.pod
        assert "<title>" in _get(f"{base}/", accept="text/html")
        shown = re.search(
            r"^leader_election_master_status\{.*\} (.*)$", _get(f"{base}/metrics"), re.MULTILINE
        )
    assert shown is not None
    assert float(shown[1]) == 1


def test_uninstalling_leaves_nothing_but_the_volumes_of_etcd(release: Release) -> None:
    release.settled()
    release.uninstall()
    kept = [f"persistentvolumeclaim/data-demo-etcd-{number}" for number in range(3)]
    wait_until(lambda: release.kubectl.everything() == kept, f"only {kept} are left", 120)


def _forwarded_port(forwarding: Child) -> int:
    return int(forwarding.wait_for_line(r"Forwarding from 127\.0\.0\.1:(\d+)", within=60)[1])


def _get(url: str, accept: str = "*/*") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return str(reply.read().decode())
