"""What is kept of pods and nodes: a few fields, never whole objects. Pure."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.kube import marks
from sidecar.operator.names import ELECTION, LABELLED_BY, OPERATOR
from sidecar.operator.spec import Election

_CORDON = "node.kubernetes.io/unschedulable"
# Taints that Kubernetes or a cloud puts on a node which goes; those that people reserve nodes by
# are borne by the pods that run there.
_GOING = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    Attributes:
        marks: role, term and deletion cost, at the version they were seen at.
        election: the Election that its annotation names, or "".
        is_ours: the operator writes its labels at once, since its sidecar may not.
        addresses: its IPs.
        hosts: those of its node, as far as the kubelet has said.
        started_at: when its kubelet took it on, by the clock of its node, seconds since 1970, or 0.
        is_ready: as its condition says.
        is_leaving: it is about to be deleted, or has ended.
        has_ended: its containers have, for good; its addresses may be another's already.
    """

    namespace: str
    name: str
    marks: marks.Pod
    labels: Mapping[str, str]
    election: str = ""
    is_ours: bool = False
    node: str = ""
    addresses: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    started_at: float = 0.0
    is_ready: bool = False
    is_leaving: bool = False
    has_ended: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def uid(self) -> str:
        """Its uid."""
        return self.marks.uid


@dataclass(frozen=True, slots=True)
class Node:
    """One node; `is_closed` when it takes no new pods."""

    name: str
    labels: Mapping[str, str]
    is_closed: bool = False


def read_pod(document: Mapping[str, Any]) -> Pod:
    """Read an object of the API.

    Raises:
        ValueError: it is none.
    """
    found = marks.Pod.read(document)
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    spec, status = document.get("spec") or {}, document.get("status") or {}
    return Pod(
        namespace=sys.intern(str(metadata.get("namespace", ""))),
        name=str(metadata["name"]),
        marks=found,
        labels={sys.intern(k): sys.intern(v) for k, v in (metadata.get("labels") or {}).items()},
        election=sys.intern(str(annotations.get(ELECTION, ""))),
        is_ours=annotations.get(LABELLED_BY) == OPERATOR,
        node=sys.intern(str(spec.get("nodeName") or "")),
        addresses=_ips(status, "podIPs", "podIP"),
        hosts=_ips(status, "hostIPs", "hostIP"),
        started_at=read_time(status.get("startTime")),
        is_ready=any(
            c.get("type") == "Ready" and c.get("status") == "True"
            for c in status.get("conditions") or ()
        ),
        is_leaving="deletionTimestamp" in metadata or status.get("phase") in _ENDED,
        has_ended=status.get("phase") in _ENDED,
    )


def read_time(text: object) -> float:
    """Return a time as Kubernetes writes it in seconds since 1970; 0 where it is none."""
    try:
        found = dt.datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return found.timestamp() if found.tzinfo is not None else 0.0


def read_node(document: Mapping[str, Any]) -> Node:
    """Read an object of the API."""
    metadata, spec = document["metadata"], document.get("spec") or {}
    return Node(
        str(metadata["name"]),
        dict(metadata.get("labels") or {}),
        bool(spec.get("unschedulable")) or any(map(_closes, spec.get("taints") or ())),
    )


def _ips(status: Mapping[str, Any], several: str, one: str) -> tuple[str, ...]:
    """Return what a list of addresses holds, or, of an older kubelet, the one beside it."""
    found = [str(entry["ip"]) for entry in status.get(several) or () if entry.get("ip")]
    return tuple(sys.intern(ip) for ip in found or filter(None, [status.get(one)]))


def _closes(taint: Mapping[str, Any]) -> bool:
    key = str(taint.get("key", ""))
    return key == _CORDON or (taint.get("effect") == "NoExecute" and key.startswith(_GOING))


def stands_in(pod: Pod, election: Election) -> bool:
    """Whether a pod belongs to an Election: by its annotation, else by the selector."""
    if pod.namespace != election.namespace:
        return False
    if pod.election:
        return pod.election == election.name
    return election.selector.matches(pod.labels)
