"""Elections, pods and queues for tests, as short as they can be said."""

from typing import Any, cast

from sidecar.core.codec import Proposal, TermRecord
from sidecar.core.queue import Entry
from sidecar.election.ports import Clock
from sidecar.operator.api import Api
from sidecar.operator.facts import Node, Pod, read_pod
from sidecar.operator.spec import Election, read_election
from sidecar.operator.stores import Stores
from sidecar.operator.tools import OperatorMeter, Tools
from sidecar.operator.view import View

NAMESPACE, NAME, UID = "shop", "master", "uid-of-election"
KEYS = "/leader-sidecar/shop/master"
ENDPOINTS = ["http://etcd.shop.svc:2379"]
NOW = 1_795_000_000.0
Document = dict[str, Any]


def document(
    *, annotations: dict[str, str] | None = None, status: Document | None = None, **spec: Any
) -> Document:
    """An Election as the API server has it."""
    return {
        "apiVersion": "leader-sidecar.io/v1alpha1",
        "kind": "Election",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "uid": UID,
            "resourceVersion": "7",
            "generation": 3,
            "annotations": annotations or {},
        },
        "spec": {
            "election": KEYS,
            "etcd": {"endpoints": ENDPOINTS},
            "selector": {"matchLabels": {"app": "master"}},
            **spec,
        },
        "status": status or {},
    }


def election(**said: Any) -> Election:
    """An Election, read."""
    return read_election(document(**said))


def pod_document(
    name: str,
    *,
    role: str | None = None,
    term: int | str | None = None,
    cost: str | None = None,
    node: str = "node-a",
    **other: Any,
) -> Document:
    """A pod as the API server has it; `other` goes into its metadata."""
    labels: Document = {"app": "master", **other.pop("labels", {})}
    annotations: Document = dict(other.pop("annotations", {}))
    if role:
        labels["leader-sidecar.io/role"] = role
    if term is not None:
        annotations["leader-sidecar.io/term"] = str(term)
    if cost is not None:
        annotations["controller.kubernetes.io/pod-deletion-cost"] = cost
    address = other.pop("address", f"10.0.0.{int(name[-1]) + 1}" if name[-1].isdigit() else "")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": f"uid-of-{name}",
            "resourceVersion": "50",
            "labels": labels,
            "annotations": annotations,
            **other,
        },
        "spec": {"nodeName": node},
        "status": {
            "podIPs": [{"ip": address}] if address else [],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, **said: Any) -> Pod:
    """A pod, read."""
    return read_pod(pod_document(name, **said))


def leading(name: str, term: int, **said: Any) -> Pod:
    """A pod that shows that it leads."""
    return pod(name, role="leader", term=term, cost="1000", **said)


def following(name: str, term: int = 0, **said: Any) -> Pod:
    """A pod that shows that it follows."""
    return pod(name, role="follower", term=term or None, **said)


def entry(id_: str, token: int, *, priority: int | None = 100, address: str = "") -> Entry:
    """A candidate in the queue; priority None for one of another program."""
    key = f"{KEYS}/{token:x}".encode()
    return Entry(key, token, token, Proposal(id_, address, priority))


def view(*entries: Entry, revision: int = 1000, **other: Any) -> View:
    """What etcd shows."""
    return View(is_known=True, revision=revision, entries=entries, **other)


def queue(*ids: str, first: int = 10, **other: Any) -> View:
    """Candidates in this order, with tokens from `first` on."""
    return view(*(entry(id_, first + n) for n, id_ in enumerate(ids)), **other)


def term(token: int, id_: str, since: float = NOW, **other: Any) -> TermRecord:
    """A term in the history."""
    return TermRecord(token, id_, since, **other)


def node(name: str, *, is_closed: bool = False, **labels: str) -> Node:
    """A node."""
    return Node(name, labels, is_closed)


def tools_for(api: object, clock: Clock, stores: Stores | None = None) -> Tools:
    """Return what a worker has that asks this API, knows of nobody else, and may always write."""
    return Tools(
        api=cast("Api", api),
        stores=cast("Stores", stores),
        clock=clock,
        gate=lambda: None,
        meter=cast("OperatorMeter", None),
        pods=lambda _: [],
        nodes=lambda: None,
        closing=lambda: 0.0,
        keep_pod=lambda _: None,
        lose_pod=lambda _key, _uid: None,
        reporter="op-0",
    )
