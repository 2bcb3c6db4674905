"""What the operator costs at rest, and how fast it follows: 50 Elections, 500 pods, 100 changes.

`make e2e` does a tenth of it, `make e2e-full` all of it.
"""

import asyncio
import functools
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sidecar.core.codec import Proposal, encode_proposal
from sidecar.core.keys import Layout
from sidecar.core.store import Put, Txn
from sidecar.etcd import EtcdCoordinator
from tests.e2e.operator.shop import Replica, Shop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PODS = 10  # of each Election
MOST_MEMORY = 140e6
MOST_PROCESSOR = 0.03  # of a core: room for a busy machine; what it takes is shown as measured


def name(n: int) -> str:
    return f"e-{n}"


async def stand(shop: Shop, elections: int) -> None:
    """Put three candidates into every election, as sidecars would."""
    async with EtcdCoordinator(shop.endpoint) as etcd:
        for n in range(elections):
            layout = Layout(f"{shop.keys}-{n}")
            for candidate in range(3):
                proposal = Proposal(f"{name(n)}-{candidate}", f"{name(n)}-{candidate}:1")
                key = layout.candidate(candidate + 1)
                await etcd.txn(
                    Txn(guards=(), then=(Put(key, encode_proposal(proposal), 0),)), timeout=5
                )


def memory(replica: Replica) -> float:
    """Resident bytes."""
    status = Path(f"/proc/{replica.child.pid}/status").read_text()
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
    return float(line.split()[1]) * 1024


def processor(replica: Replica) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{replica.child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(
    ("elections", "rest"), [(5, 20.0), pytest.param(50, 60.0, marks=pytest.mark.long)]
)
def test_at_rest_it_costs_little_and_writes_nothing(
    shop: Shop, elections: int, rest: float, measured: Callable[[str], None]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: shop.pod(
                    f"{name(n // PODS)}-{n % PODS}", labels={"app": name(n // PODS)}
                ),
                range(elections * PODS),
            )
        )
    asyncio.run(stand(shop, elections))
    base = f"/apis/leader-sidecar.io/v1alpha1/namespaces/{shop.namespace}/elections"
    for n in range(elections):
        shop.server.admin.create(
            base,
            shop.election(
                name(n),
                election=f"{shop.keys}-{n}",
                selector={"matchLabels": {"app": name(n)}},
            ),
        )
    # As the chart deploys it.
    replica = shop.operator("op-0", "--log-level=info", "--namespaces=", "--ttl=15s")
    took = shop.until(lambda: healthy(shop, base) == elections, "all are healthy", 120)
    shop.until(lambda: replica.metric("leader_sidecar_operator_elections") >= elections, "known")
    writes, requests = None, 0.0
    for _ in range(60):
        now = (written(replica), replica.metric("leader_sidecar_operator_api_requests_total"))
        if (now[0], now[1]) == (writes, requests):
            break
        writes, requests = now
        time.sleep(2)
    began, used = time.monotonic(), processor(replica)
    time.sleep(rest)
    share = (processor(replica) - used) / (time.monotonic() - began)
    seconds, asked = (
        time.monotonic() - began,
        replica.metric("leader_sidecar_operator_api_requests_total") - requests,
    )
    measured(
        f"{elections} Elections, {elections * PODS} pods: healthy after {took:.1f} s, "
        f"{memory(replica) / 1e6:.1f} MB, {share * 100:.2f} % of a core, "
        f"{asked:.0f} requests in {seconds:.0f} s"
    )
    assert written(replica) == writes
    assert memory(replica) <= MOST_MEMORY
    assert share <= MOST_PROCESSOR


def healthy(shop: Shop, base: str) -> int:
    found = shop.server.admin.get(base)["items"]
    return [e.get("status", {}).get("health") for e in found].count("Healthy")


def written(replica: Replica) -> float:
    requests = "leader_sidecar_operator_api_requests_total"
    return sum(replica.metric(requests, verb=verb) for verb in ("patch", "post", "put", "delete"))


@pytest.mark.parametrize("changes", [10, pytest.param(100, marks=pytest.mark.long)])
def test_status_and_labels_are_right_within_a_second_of_every_change(
    shop: Shop, changes: int, measured: Callable[[str], None]
) -> None:
    names = ("m-0", "m-1", "m-2")
    for each in names:
        shop.pod(each)
    shop.make(service={"ports": [{"name": "http", "port": 80}]})
    shop.candidates(*names)
    shop.operator()
    shop.wait_for_leader("m-0")
    shop.until(lambda: shop.role("m-0") == "leader", "labelled")
    shown, labelled, led = [], [], []
    with ThreadPoolExecutor(1) as pool:
        for change in range(changes):
            to = names[(change + 1) % 3]
            asked = pool.submit(shop.team.command, "handover", "--to", to)
            shop.team.members[to].wait_for("leader")
            began = time.monotonic()
            shop.until(functools.partial(leads_to, shop, to), f"the slice shows {to}")
            led.append(time.monotonic() - began)
            shop.wait_for_leader(to)
            shown.append(time.monotonic() - began)
            shop.wait_for_label(to)
            labelled.append(time.monotonic() - began)
            assert asked.result().returncode == 0
    measured(
        f"{changes} changes: slice p50 {statistics.median(led) * 1e3:.0f} ms; "
        f"status p50 {statistics.median(shown) * 1e3:.0f} ms, worst "
        f"{max(shown) * 1e3:.0f} ms; label put right p50 {statistics.median(labelled) * 1e3:.0f} "
        f"ms, p95 {sorted(labelled)[int(len(labelled) * 0.95)] * 1e3:.0f} ms"
    )
    assert max(shown) <= 1.0
    assert sorted(labelled)[int(len(labelled) * 0.95)] <= 1.0


def leads_to(shop: Shop, pod: str) -> bool:
    """Whether the Service leads to a pod."""
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices"
    endpoints = shop.server.admin.get(f"{slices}/master-leader-ipv4").get("endpoints") or []
    return [each["targetRef"]["name"] for each in endpoints] == [pod]
