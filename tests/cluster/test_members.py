"""Members of a real etcd begin, join, are replaced and leave, as the chart has them do it."""

import asyncio
import json
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from sidecar.cli.main import run
from sidecar.cluster.api import Api
from sidecar.cluster.initializing import Files, Initializer
from sidecar.cluster.membership import Patience, promote_own, shrink
from sidecar.cluster.own_pod import Pods
from sidecar.cluster.plan import Plan
from sidecar.cluster.replicas import Replicas
from sidecar.election.ports import SystemClock
from sidecar.errors import Refused, Unavailable
from sidecar.etcd import wal
from sidecar.etcd.admin import Admin, Cluster, MemberList, administering
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import parse_endpoints
from tests.cluster.kubernetes_api import KubernetesApi
from tests.support.binaries import require_etcd
from tests.support.procs import LOOPBACK, Child, ReservedPort

pytestmark = pytest.mark.integration

T = TypeVar("T")

PODS = "/api/v1/namespaces/shop/pods/"
STATEFUL_SET = "/apis/apps/v1/namespaces/shop/statefulsets/demo-etcd"
LARGEST = 5


class Forgetful(Cluster):
    """Loses the answer to the first change that it asks for."""

    has_lost = False

    async def ask(self, question: Callable[[Admin], Awaitable[T]], *, within: float = 3.0) -> T:
        answer = await super().ask(question, within=within)
        if answer is None and not self.has_lost:
            self.has_lost = True
            raise Unavailable("the answer was lost")
        return answer


class Crew:
    """Up to five members, each with a directory; started by what the init container writes."""

    def __init__(self, folder: Path, api: KubernetesApi, resources: ExitStack) -> None:
        self.folder = folder
        self.api = api
        self.said: list[str] = []
        self.lives = dict.fromkeys(range(LARGEST), 0)
        self.children: dict[str, Child] = {}
        self._resources = resources
        self._etcd = require_etcd().etcd
        numbered = [(n, what) for n in range(LARGEST) for what in ("client", "peer")]
        self._ports = {each: ReservedPort() for each in numbered}
        for port in self._ports.values():
            resources.callback(port.close)
        # One name for all members needs a name server; here each member has a port instead.
        self.plan = Plan(
            stateful_set="demo-etcd",
            namespace="shop",
            replicas=3,
            peer_url="",
            client_url="",
            endpoints=parse_endpoints(",".join(self.url(n, "client") for n in range(LARGEST))),
            token="shop-demo-etcd",  # noqa: S106 - the name of a cluster
            replaces_lost=False,
            config={"log-level": "warn", "heartbeat-interval": 100, "election-timeout": 1000},
        )

    def url(self, number: int, what: str) -> str:
        return f"http://{LOOPBACK}:{self._ports[number, what].number}"

    def plan_of(self, number: int, **changed: object) -> Plan:
        """The plan as one member sees it: its own URLs, and those of the others."""
        crew = self

        class Placed(Plan):
            def peer_url_of(self, name: str) -> str:
                return crew.url(int(name[-1]), "peer")

            def client_url_of(self, name: str) -> str:
                return crew.url(int(name[-1]), "client")

        del number
        plain = replace(self.plan, **changed)  # type: ignore[arg-type]
        return Placed(**{name: getattr(plain, name) for name in plain.__dataclass_fields__})

    def data_dir(self, number: int) -> Path:
        return self.folder / f"demo-etcd-{number}"

    async def init(self, number: int, *, within: float = 30.0, **changed: object) -> dict[str, str]:
        """Run the init container of a member, and return the configuration that it wrote."""
        name = f"demo-etcd-{number}"
        self.create_pod(number)
        out = self.folder / f"{name}.json"
        plan = self.plan_of(number, **changed)
        async with administering(plan.endpoints, Credentials()) as cluster:
            await Initializer(
                plan,
                name,
                Files(self.data_dir(number), out),
                cluster=cluster,
                pods=Pods(self.api.api, "shop", name, f"uid-{number}-{self.lives[number]}"),
                clock=SystemClock(),
                say=self.said.append,
                within=within,
            ).run()
        written: dict[str, str] = json.loads(out.read_text())
        return written

    def create_pod(self, number: int) -> None:
        """Have the pod of a member, unless it is there."""
        name = f"demo-etcd-{number}"
        metadata = {"name": name, "uid": f"uid-{number}-{self.lives[number]}"}
        self.api.things.setdefault(PODS + name, {"metadata": metadata, "status": {}})

    def run(self, number: int) -> None:
        """Start etcd with what was written, as the kubelet would."""
        name = f"demo-etcd-{number}"
        config = self.folder / f"{name}.json"
        given = json.loads(config.read_text())
        given["listen-client-urls"] = self.url(number, "client")
        given["listen-peer-urls"] = self.url(number, "peer")
        config.write_text(json.dumps(given))
        child = Child([self._etcd, f"--config-file={config}"], name=name, folder=self.folder)
        self.children[name] = self._resources.enter_context(child)
        status = {"name": "etcd", "restartCount": 0, "state": {"running": {}}}
        self.api.things[PODS + name]["status"] = {"containerStatuses": [status]}

    def forget(self, number: int, *, with_data: bool) -> None:
        """Have a pod be gone, killed; and its volume too."""
        name = f"demo-etcd-{number}"
        self.children.pop(name).kill()
        self.lives[number] += 1
        del self.api.things[PODS + name]
        if with_data:
            shutil.rmtree(self.data_dir(number))

    def create_stateful_set(self, size: int) -> None:
        """Have a StatefulSet for so many members, as its controller has seen it."""
        owner = {"manager": "helm"}
        self.api.things[STATEFUL_SET] = {
            "metadata": {"generation": 1, "resourceVersion": "1", "managedFields": [owner]},
            "spec": {"replicas": size},
            "status": {"observedGeneration": 1},
        }

    def sizes(self) -> list[int]:
        """The numbers that the StatefulSet was lowered to."""
        specs = [body.get("spec", {}) for path, body in self.api.patched if path == STATEFUL_SET]
        return [spec["replicas"] for spec in specs if spec]

    async def begin(self, size: int = 3) -> None:
        """Have a fresh cluster of so many members, all serving."""
        async with asyncio.TaskGroup() as group:
            for number in range(size):
                group.create_task(self.init(number, replicas=size))
        for number in range(size):
            self.run(number)
        await self.listed(size)

    async def listed(self, voting: int) -> MemberList:
        """Wait until so many members vote, and all of the list have started."""
        async with administering(self.plan.endpoints, Credentials()) as cluster:
            patience = Patience(SystemClock(), 60, self.said.append)
            while True:
                found = await patience.until(lambda: cluster.ask(Admin.members))
                voters = [m for m in found.members if m.has_started and not m.is_learner]
                if len(voters) == len(found.members) == voting:
                    return found
                await patience.wait(f"{len(voters)} vote")

    async def promote(self, number: int, through: type[Cluster] = Cluster) -> bool:
        patience = Patience(SystemClock(), 60, self.said.append)
        cluster = through(self.plan.endpoints, Credentials())
        try:
            return await promote_own(self.plan_of(number), f"demo-etcd-{number}", cluster, patience)
        finally:
            await cluster.close()

    async def shrink(
        self, size: int, *, within: float = 60.0, through: type[Cluster] = Cluster
    ) -> int:
        patience = Patience(SystemClock(), within, self.said.append)
        cluster = through(self.plan.endpoints, Credentials())
        try:
            return await shrink(
                self.plan,
                size,
                cluster=cluster,
                replicas=Replicas(self.api.api, self.plan),
                patience=patience,
                say=self.said.append,
            )
        finally:
            await cluster.close()


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    with ExitStack() as resources:
        api = resources.enter_context(KubernetesApi())
        yield Crew(tmp_path, api, resources)


async def test_three_empty_members_begin_one_cluster_and_come_back_to_it(crew: Crew) -> None:
    await crew.begin()
    before = await crew.listed(3)
    crew.forget(1, with_data=False)
    written = await crew.init(1)
    assert written["initial-cluster-state"] == "existing"
    crew.run(1)
    assert (await crew.listed(3)) == before


async def test_members_follow_one_that_began_before_them_and_answers_nobody(crew: Crew) -> None:
    for number in range(3):
        crew.create_pod(number)
    for number in (1, 2):  # they have said that they are empty, and go on waiting
        with pytest.raises(Refused):
            await crew.init(number, within=0.0)
    await crew.init(0)
    crew.run(0)
    assert (await crew.init(1))["initial-cluster-state"] == "new"
    crew.run(1)
    await crew.init(2)  # follows the two, or joins them where they answer already
    crew.run(2)
    await crew.listed(3)


async def test_the_ids_in_the_log_are_those_that_the_cluster_tells(crew: Crew) -> None:
    await crew.begin(1)
    found = await crew.listed(1)
    assert wal.identity(crew.data_dir(0)) == wal.Identity(found.members[0].id, found.cluster_id)
    assert not wal.has_data(crew.data_dir(1))


async def test_an_empty_member_does_not_begin_while_another_one_has_said_nothing(
    crew: Crew,
) -> None:
    with pytest.raises(Refused, match="whether demo-etcd-1, demo-etcd-2 has data"):
        await crew.init(0, within=1.0)
    (path, event), *_ = crew.api.created
    assert path == "/api/v1/namespaces/shop/events"
    assert event["involvedObject"]["name"] == "demo-etcd-0"
    assert "demo-etcd-1" in event["message"]


async def test_a_member_that_lost_its_data_stops_with_an_event(crew: Crew) -> None:
    await crew.begin()
    crew.forget(2, with_data=True)
    with pytest.raises(Refused, match="autoReplaceMember"):
        await crew.init(2)
    assert crew.api.created[0][1]["reason"] == "EtcdMemberStopped"


async def test_a_member_that_lost_its_data_is_replaced_where_that_is_wanted(crew: Crew) -> None:
    await crew.begin()
    before = await crew.listed(3)
    crew.forget(2, with_data=True)
    written = await crew.init(2, replaces_lost=True)
    assert written["initial-cluster-state"] == "existing"
    crew.run(2)
    assert await crew.promote(2)
    after = await crew.listed(3)
    assert len({m.id for m in after.members} - {m.id for m in before.members}) == 1


async def test_without_a_quorum_a_lost_member_is_not_replaced(crew: Crew) -> None:
    await crew.begin()
    crew.forget(1, with_data=False)
    crew.forget(2, with_data=True)
    with pytest.raises(Refused, match="waited"):
        await crew.init(2, within=2.0, replaces_lost=True)


async def test_etcd_grows_shrinks_and_grows_again(crew: Crew) -> None:
    await crew.begin()
    for number in (3, 4):
        await crew.init(number, replicas=5)
        crew.run(number)
        assert await crew.promote(number)
        assert not await crew.promote(number)
    await crew.listed(5)
    crew.create_stateful_set(5)
    assert await crew.shrink(3) == 2
    assert crew.sizes() == [4, 3]
    assert crew.api.things[STATEFUL_SET]["metadata"]["managedFields"] == [{"manager": "helm"}]
    assert [line.split()[1] for line in crew.said if line.startswith("removed")] == [
        "demo-etcd-4",
        "demo-etcd-3",
    ]
    await crew.listed(3)
    assert await crew.shrink(3) == 0
    assert crew.sizes() == [4, 3]
    # The volume of one is still there, with the data of a member that is none any more.
    crew.forget(3, with_data=False)
    await crew.init(3, replicas=5)
    assert any("discarded the data" in line for line in crew.said)
    crew.run(3)
    assert await crew.promote(3)
    await crew.listed(4)


async def test_a_change_whose_answer_was_lost_is_not_waited_for(crew: Crew) -> None:
    await crew.begin()
    await crew.init(3, replicas=4)
    crew.run(3)
    assert not await crew.promote(3, Forgetful)
    await crew.listed(4)
    crew.create_stateful_set(4)
    assert await crew.shrink(2, within=30, through=Forgetful) == 2
    assert crew.sizes()[-1] == 2
    await crew.listed(2)


async def test_a_pod_goes_with_its_member_before_the_next_one_is_removed(crew: Crew) -> None:
    await crew.begin()
    crew.create_stateful_set(3)
    crew.api.things[STATEFUL_SET]["metadata"]["generation"] = 2  # its controller is away
    with pytest.raises(Refused, match="controller has not seen"):
        await crew.shrink(1, within=20.0)
    assert crew.sizes() == [2]
    assert len((await crew.listed(2)).members) == 2


async def test_shrinking_gives_up_without_a_quorum_and_removes_nobody(crew: Crew) -> None:
    await crew.begin()
    crew.create_stateful_set(3)
    crew.children["demo-etcd-1"].pause()
    crew.children["demo-etcd-2"].pause()
    with pytest.raises(Refused, match="in vain"):
        await crew.shrink(1, within=2.0)
    assert crew.sizes() == []
    for name in ("demo-etcd-1", "demo-etcd-2"):
        crew.children[name].resume()
    await crew.listed(3)


async def test_with_data_nobody_needs_the_api_server(crew: Crew) -> None:
    await crew.begin(1)
    crew.forget(0, with_data=False)
    crew.api.refuses = "PATCH"
    await crew.init(0, replicas=1)
    crew.run(0)
    await crew.listed(1)
    assert any("cannot patch this" in line for line in crew.said)


def test_without_leave_to_lower_the_number_of_pods_no_member_is_asked_to_go(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(crew.begin())
    crew.create_stateful_set(3)
    crew.api.refuses = "PATCH"
    assert scale_down(crew, tmp_path, monkeypatch) == 1
    assert len(asyncio.run(crew.listed(3)).members) == 3


def test_an_api_server_that_is_away_for_a_moment_ends_no_upgrade(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(crew.begin())
    crew.create_stateful_set(3)
    crew.api.is_away = 2
    assert scale_down(crew, tmp_path, monkeypatch) == 0
    assert crew.sizes() == [2, 1]


def scale_down(crew: Crew, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command of the hook, down to one member; return its exit code."""
    monkeypatch.setattr(Api, "in_cluster", lambda: crew.api.api)
    given = {
        "statefulSet": crew.plan.stateful_set,
        "namespace": crew.plan.namespace,
        "replicas": 1,
        "peerUrl": "http://{name}:2380",
        "clientUrl": "http://{name}:2379",
        "endpoints": ",".join(crew.url(n, "client") for n in range(3)),
        "token": crew.plan.token,
    }
    plan = folder / "plan.json"
    plan.write_text(json.dumps(given))
    return run(["etcd", "scale-down", f"--plan={plan}", "--replicas=1", "--within=30s"])
