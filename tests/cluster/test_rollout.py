"""The rollout of a StatefulSet against a fake API server and a queue; a real one: tests/e2e."""

from collections.abc import Iterator, Sequence

import pytest

from sidecar.cluster.api import ApiError
from sidecar.cluster.membership import Patience
from sidecar.cluster.rolling import Driver
from sidecar.election.ports import SystemClock
from sidecar.errors import Refused, Unavailable
from tests.cluster.kubernetes_api import KubernetesApi, Thing

SET = "/apis/apps/v1/namespaces/shop/statefulsets/demo"
PODS = "/api/v1/namespaces/shop/pods"


class Queue:
    """An election as the driver sees it: a deleted pod's successor stands at the end."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.handovers: list[str] = []
        self.fails = 0

    async def standing(self) -> Sequence[str]:
        return tuple(self.names)

    async def hand_over(self, to: str) -> None:
        if self.fails:
            self.fails -= 1
            raise Unavailable("no answer")
        self.handovers.append(to)
        leader = self.names.pop(0)
        self.names.remove(to)
        self.names = [to, *self.names, leader]


class Controller:
    """What Kubernetes does about a StatefulSet with updates OnDelete."""

    def __init__(self, kubernetes: KubernetesApi, queue: Queue) -> None:
        self.kubernetes = kubernetes
        self.queue = queue
        self.deleted: list[str] = []
        kubernetes.things[SET] = {
            "metadata": {"generation": 2},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "demo"}}},
            "status": {"observedGeneration": 2, "updateRevision": "new"},
        }
        for name in queue.names:
            self.make(name, "old")
        kubernetes.lists[PODS] = self.pods
        kubernetes.on_delete = self.replace

    def make(self, name: str, revision: str) -> None:
        self.kubernetes.things[f"{PODS}/{name}"] = {
            "metadata": {
                "name": name,
                "uid": f"{name}-{revision}",
                "labels": {"controller-revision-hash": revision},
            },
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }

    def pods(self) -> list[Thing]:
        things = self.kubernetes.things.items()
        return [thing for path, thing in things if path.startswith(f"{PODS}/")]

    def replace(self, path: str) -> None:
        name = path.rsplit("/", 1)[1]
        self.deleted.append(name)
        self.make(name, "new")
        self.queue.names.remove(name)
        self.queue.names.append(name)


@pytest.fixture
def kubernetes() -> Iterator[KubernetesApi]:
    with KubernetesApi() as api:
        yield api


def driver(kubernetes: KubernetesApi, queue: Queue, *, within: float = 30.0) -> Driver:
    patience = Patience(SystemClock(), within, lambda line: None)
    return Driver(
        kubernetes.api,
        "shop",
        "demo",
        election=queue,
        patience=patience,
        say=lambda line: None,
    )


@pytest.mark.parametrize("leader", [0, 1, 2])
async def test_the_leader_changes_once_from_whichever_pod_leads(
    kubernetes: KubernetesApi, leader: int
) -> None:
    names = [f"demo-{n}" for n in range(3)]
    queue = Queue(names[leader], *(name for name in names if name != names[leader]))
    controller = Controller(kubernetes, queue)
    assert await driver(kubernetes, queue).run() == 1
    assert sorted(controller.deleted) == names
    assert controller.deleted[-1] == names[leader]
    assert len(queue.handovers) == 1


async def test_a_handover_that_was_not_answered_is_looked_at_anew(
    kubernetes: KubernetesApi,
) -> None:
    queue = Queue("demo-0", "demo-1", "demo-2")
    queue.fails = 1
    Controller(kubernetes, queue)
    assert await driver(kubernetes, queue).run() == 1
    assert len(queue.handovers) == 1


async def test_a_missing_permission_is_told_by_its_name(kubernetes: KubernetesApi) -> None:
    queue = Queue("demo-0", "demo-1", "demo-2")
    Controller(kubernetes, queue)
    kubernetes.refuses = "DELETE"
    with pytest.raises(ApiError, match=r"DELETE .*/pods/demo-2: 403 cannot delete this"):
        await driver(kubernetes, queue).run()


async def test_an_api_server_that_is_away_for_a_moment_ends_no_rollout(
    kubernetes: KubernetesApi,
) -> None:
    queue = Queue("demo-0", "demo-1", "demo-2")
    Controller(kubernetes, queue)
    kubernetes.is_away = 2
    assert await driver(kubernetes, queue).run() == 1


async def test_a_rollout_that_does_not_come_to_its_end_says_where_it_stands(
    kubernetes: KubernetesApi,
) -> None:
    queue = Queue("demo-0", "demo-1", "demo-2")
    controller = Controller(kubernetes, queue)
    kubernetes.on_delete = controller.deleted.append  # no new pod comes
    with pytest.raises(Refused, match="waited 1 s in vain: a pod is not ready yet"):
        await driver(kubernetes, queue, within=1.0).run()


def test_a_pod_that_is_another_one_by_now_is_left_alone(kubernetes: KubernetesApi) -> None:
    queue = Queue("demo-0", "demo-1", "demo-2")
    controller = Controller(kubernetes, queue)
    kubernetes.api.delete(f"{PODS}/demo-1", {"preconditions": {"uid": "of another"}})
    assert not controller.deleted
    assert kubernetes.api.find(f"{PODS}/gone") is None
