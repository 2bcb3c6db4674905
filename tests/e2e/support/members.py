"""The members of a release's etcd: who they are, what they hold, and having another one lead."""

import base64
import json
from dataclasses import dataclass

from tests.e2e.support.release import Release
from tests.support.procs import wait_until

_WITHIN = 60.0  # seconds
_RESOURCES = "/crawler/resources/"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a release's etcd, by its pod."""

    pod: str
    id: int
    endpoint: str
    leads: bool


def members(release: Release) -> list[Member]:
    """Return the members that answer."""
    told = etcdctl(release, "endpoint", "status", "--cluster", "--write-out=json")
    return [_member(status) for status in json.loads(told)]


def voters(release: Release) -> dict[str, int]:
    """Wait until every member of the list votes; return their ids by their pods."""

    def all_vote() -> dict[str, int] | None:
        told = json.loads(etcdctl(release, "member", "list", "--write-out=json"))["members"]
        if any(member.get("isLearner") or "name" not in member for member in told):
            return None
        return {member["name"]: member["ID"] for member in told}

    return wait_until(all_vote, "every member votes", _WITHIN)


def stored(release: Release) -> dict[str, int]:
    """Return the resources that are in etcd, and how often each was written."""
    command = ("get", "--prefix", "--keys-only", "--write-out=json", _RESOURCES)
    return {
        base64.b64decode(found["key"]).decode().removeprefix(_RESOURCES): found["version"]
        for found in json.loads(etcdctl(release, *command)).get("kvs", [])
    }


def have_etcd_led_on(release: Release, node: str, *, wanted: bool) -> None:
    """Have etcd's leader on a node, or on another one."""
    there = members(release)
    leading = next(member for member in there if member.leads)
    if (release.node_of(leading.pod) == node) == wanted:
        return
    to = next(member for member in there if (release.node_of(member.pod) == node) == wanted)
    have_etcd_led_by(release, to.pod)


def have_etcd_led_by(release: Release, pod: str) -> None:
    """Have a member lead etcd."""
    there = members(release)
    leading = next(member for member in there if member.leads)
    to = next(member for member in there if member.pod == pod)
    if to != leading:
        etcdctl(release, f"--endpoints={leading.endpoint}", "move-leader", f"{to.id:x}")


def etcdctl(release: Release, *arguments: str) -> str:
    """Run etcdctl in the pod of the first member, and return what it printed."""
    pod = f"{release.name}-etcd-0"
    return release.kubectl.run("exec", pod, "-c", "etcd", "--", "etcdctl", *arguments)


def _member(told: dict[str, dict[str, object]]) -> Member:
    status, endpoint = told["Status"], str(told["Endpoint"])
    header = status["header"]
    assert isinstance(header, dict)
    id_ = int(header["member_id"])
    pod = endpoint.partition("://")[2].partition(".")[0]
    return Member(pod, id_, endpoint, int(str(status["leader"])) == id_)
