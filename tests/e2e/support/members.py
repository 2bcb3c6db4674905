"""etcd's own leader: where it is, and having it elsewhere."""

import json
from dataclasses import dataclass

from tests.e2e.support.release import Release


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a release's etcd, by its pod."""

    pod: str
    id: int
    endpoint: str
    leads: bool


def members(release: Release) -> list[Member]:
    """Return the members that answer."""
    pod = f"{release.name}-etcd-0"
    told = etcdctl(release, pod, "endpoint", "status", "--cluster", "--write-out=json")
    return [_member(status) for status in json.loads(told)]


def have_etcd_led_on(release: Release, node: str, *, wanted: bool) -> None:
    """Have etcd's leader on a node, or on another one."""
    there = members(release)
    leading = next(member for member in there if member.leads)
    if (release.node_of(leading.pod) == node) == wanted:
        return
    to = next(member for member in there if (release.node_of(member.pod) == node) == wanted)
    etcdctl(release, leading.pod, f"--endpoints={leading.endpoint}", "move-leader", f"{to.id:x}")


def _member(told: dict[str, dict[str, object]]) -> Member:
    status, endpoint = told["Status"], str(told["Endpoint"])
    header = status["header"]
    assert isinstance(header, dict)
    id_ = int(header["member_id"])
    pod = endpoint.partition("://")[2].partition(".")[0]
    return Member(pod, id_, endpoint, int(str(status["leader"])) == id_)


def etcdctl(release: Release, pod: str, *arguments: str) -> str:
    """Run etcdctl in a pod of its etcd and return what it printed."""
    return release.kubectl.run("exec", pod, "-c", "etcd", "--", "etcdctl", *arguments)
