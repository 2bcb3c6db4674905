"""The Service and its slices: as few writes as there can be, and none over a newer term."""

from dataclasses import replace
from typing import Any, cast

import pytest

from sidecar.errors import ApiRefused
from sidecar.operator.api import Api
from sidecar.operator.publishing import NewerTermError, NotOursError, Publisher
from sidecar.operator.slices import service_of
from sidecar.operator.spec import Election
from sidecar.operator.view import View
from tests.operator.things import Document, election, pod, queue, view

SERVICE = "/api/v1/namespaces/shop/services/master-leader"
SLICE = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices/master-leader-ipv4"
PODS = [pod("m-0"), pod("m-1")]


class Objects:
    """Services and slices with versions, and what has been written."""

    def __init__(self) -> None:
        self.there: dict[str, Document] = {}
        self.writes: list[str] = []
        self._version = 0

    def put(self, path: str, found: Document, **metadata: Any) -> Document:
        """Put one there, as somebody else does it."""
        self._version += 1
        told = {**found["metadata"], **metadata, "resourceVersion": str(self._version)}
        self.there[path] = {**found, "metadata": {"uid": "uid-of-service", **told}}
        return self.there[path]

    async def find(self, path: str) -> Document | None:
        return self.there.get(path)

    async def create(self, path: str, body: Document) -> Document:
        self.writes.append("create")
        return self.put(f"{path}/{body['metadata']['name']}", body)

    async def patch(self, path: str, body: Document) -> Document:
        found = self.there[path]
        version = body["metadata"].get("resourceVersion")
        if version not in {None, found["metadata"]["resourceVersion"]}:
            raise ApiRefused(409, "another version")
        self.writes.append("patch")
        metadata = {**found["metadata"], **body["metadata"]}
        for name in ("labels", "annotations"):
            was = found["metadata"].get(name) or {}
            metadata[name] = {**was, **(body["metadata"].get(name) or {})}
        return self.put(path, {**found, **body, "metadata": metadata})

    @property
    def shown(self) -> list[str]:
        """The pods that the Service leads to."""
        endpoints = self.there[SLICE]["endpoints"]
        return [e["targetRef"]["name"] for e in endpoints if e["conditions"]["ready"]]


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def publisher(objects: Objects) -> Publisher:
    return Publisher(cast("Api", objects))


OF = election(service={"ports": [{"name": "http", "port": 80}]})


async def publish(publisher: Publisher, seen: View, of: Election = OF) -> None:
    assert of.service is not None
    await publisher.publish(of, of.service, seen, PODS)


async def test_a_change_of_the_leader_costs_one_write_and_none_costs_nothing(
    objects: Objects, publisher: Publisher
) -> None:
    await publish(publisher, queue("m-0", "m-1"))
    assert (objects.writes, objects.shown) == (["create", "create"], ["m-0"])
    objects.writes.clear()
    await publish(publisher, queue("m-0", "m-1"))
    assert objects.writes == []
    await publish(publisher, queue("m-1", first=11))
    assert (objects.writes, objects.shown) == (["patch"], ["m-1"])


async def test_while_nobody_leads_the_last_leader_stays_as_one_that_is_not_ready(
    objects: Objects, publisher: Publisher
) -> None:
    await publish(publisher, view())
    assert objects.there[SLICE]["endpoints"] == []  # nobody has led yet
    await publish(publisher, queue("m-0", "m-1"))
    objects.writes.clear()
    for seen in (queue("m-0", is_paused=True), view()):
        await publish(publisher, seen)
        (endpoint,) = objects.there[SLICE]["endpoints"]
        assert endpoint["targetRef"]["name"] == "m-0"
        assert endpoint["conditions"] == {"ready": False, "serving": False, "terminating": False}
    assert objects.writes.count("patch") <= 2
    objects.writes.clear()
    await publish(publisher, view())
    assert objects.writes == []
    await publish(publisher, queue("m-9", first=11))  # whose pod is gone
    assert objects.shown == []
    await publish(publisher, queue("m-1", first=12))
    assert objects.shown == ["m-1"]


async def test_a_slice_that_shows_a_term_beyond_what_we_have_seen_is_left_as_it_is_and_told(
    objects: Objects, publisher: Publisher
) -> None:
    await publish(publisher, queue("m-0", "m-1"))
    newer = {"leader-sidecar.io/term": "1001", "leader-sidecar.io/election": "master"}
    objects.put(SLICE, objects.there[SLICE], annotations=newer)
    objects.writes.clear()
    publisher.forget()
    for _ in range(2):
        with pytest.raises(NewerTermError, match="master-leader-ipv4 shows term 1001, which etcd"):
            await publish(publisher, queue("m-1", first=11, revision=1000))
    assert (objects.writes, objects.shown) == ([], ["m-0"])
    await publish(publisher, queue("m-1", first=1002, revision=1002))
    assert (objects.writes, objects.shown) == (["patch"], ["m-1"])


async def test_a_slice_that_somebody_else_has_written_meanwhile_is_looked_at_first(
    objects: Objects, publisher: Publisher
) -> None:
    await publish(publisher, queue("m-0", "m-1"))
    newer = {"leader-sidecar.io/term": "1001", "leader-sidecar.io/election": "master"}
    objects.put(SLICE, objects.there[SLICE], annotations=newer)
    with pytest.raises(ApiRefused):
        await publish(publisher, queue("m-1", first=11, revision=1000))
    with pytest.raises(NewerTermError):
        await publish(publisher, queue("m-1", first=11, revision=1000))
    assert objects.shown == ["m-0"]
    del objects.there[SLICE]  # as the message says
    await publish(publisher, queue("m-1", first=11, revision=1000))
    assert objects.shown == ["m-1"]


async def test_only_a_slice_of_this_election_is_withdrawn(
    objects: Objects, publisher: Publisher
) -> None:
    await publish(publisher, queue("m-0"))
    others = {"leader-sidecar.io/election": "other"}
    objects.put(SLICE, objects.there[SLICE], annotations=others)
    await publisher.withdraw(OF, "master-leader")
    assert objects.shown == ["m-0"]
    objects.put(SLICE, objects.there[SLICE], annotations={"leader-sidecar.io/election": "master"})
    objects.writes.clear()
    for _ in range(2):
        await publisher.withdraw(OF, "master-leader")
    assert (objects.writes, objects.shown) == (["patch"], [])


async def test_a_service_of_two_families_gets_a_slice_of_each(
    objects: Objects, publisher: Publisher
) -> None:
    assert OF.service is not None
    made = service_of(OF, OF.service)
    objects.put(SERVICE, {**made, "spec": {**made["spec"], "ipFamilies": ["IPv6", "IPv4"]}})
    both = replace(pod("m-0"), addresses=("10.0.0.1", "fd00::1"))
    await publisher.publish(OF, OF.service, queue("m-0"), [both])
    shown = {
        path.rpartition("-")[2]: (found["addressType"], found["endpoints"][0]["addresses"])
        for path, found in objects.there.items()
        if path != SERVICE
    }
    assert shown == {"ipv4": ("IPv4", ["10.0.0.1"]), "ipv6": ("IPv6", ["fd00::1"])}


async def test_a_service_of_somebody_else_is_left_alone(
    objects: Objects, publisher: Publisher
) -> None:
    theirs = {"metadata": {"name": "master-leader"}, "spec": {"selector": {"app": "x"}}}
    objects.put(SERVICE, theirs)
    with pytest.raises(NotOursError, match="give spec"):
        await publish(publisher, queue("m-0"))
    assert objects.writes == []


THEIRS: Document = {
    "metadata": {"name": "master-leader-ipv4", "labels": {"kubernetes.io/service-name": "other"}},
    "addressType": "IPv4",
    "endpoints": [],
}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"labels": {"endpointslice.kubernetes.io/managed-by": "somebody"}},
        {
            "labels": {"endpointslice.kubernetes.io/managed-by": "leader-sidecar-operator"},
            "annotations": {"leader-sidecar.io/election": "other"},
        },
    ],
)
async def test_a_slice_of_somebody_else_is_left_alone_and_told(
    objects: Objects, publisher: Publisher, metadata: Document
) -> None:
    theirs = objects.put(SLICE, THEIRS, **metadata)
    for _ in range(2):
        with pytest.raises(NotOursError, match="EndpointSlice master-leader-ipv4 is there"):
            await publish(publisher, queue("m-0"))
    assert objects.there[SLICE] == theirs
    del objects.there[SLICE]
    await publish(publisher, queue("m-0"))
    assert objects.shown == ["m-0"]


@pytest.mark.parametrize(
    "taken",
    [
        {"labels": {}},
        {"labels": {"kubernetes.io/service-name": "other"}},
        {"annotations": {}},
        {"ownerReferences": []},
        {"labels": {}, "annotations": {}},
        {"labels": {}, "ownerReferences": []},
        {"annotations": {}, "ownerReferences": []},
    ],
)
async def test_a_slice_of_ours_gets_back_what_somebody_has_taken_off(
    objects: Objects, publisher: Publisher, taken: Document
) -> None:
    await publish(publisher, queue("m-0"))
    whole = objects.there[SLICE]["metadata"]
    objects.put(SLICE, objects.there[SLICE], **taken)
    publisher.forget()
    await publish(publisher, queue("m-0"))
    put_right = objects.there[SLICE]["metadata"]
    for name in ("labels", "annotations", "ownerReferences"):
        assert put_right[name] == whole[name]
