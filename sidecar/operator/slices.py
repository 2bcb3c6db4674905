"""The Service without selector and the EndpointSlice that follow the leader. Pure.

A selector Service follows a label by way of the pod's label and the EndpointSlice controller; this
is one write, at the change. One slice per address family, numeric ports with the Service's names,
not ready while nobody leads or the leader's pod is gone.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.operator.facts import Pod
from sidecar.operator.names import API_VERSION, ELECTION, KIND, MANAGER, TOKEN
from sidecar.operator.spec import Election, Port, Service
from sidecar.operator.view import View, pod_of_leader

FAMILIES = {4: "IPv4", 6: "IPv6"}
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_SERVICE_NAME = "kubernetes.io/service-name"

Document = dict[str, Any]


def service_of(election: Election, service: Service) -> Document:
    """Return the Service to make."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "namespace": election.namespace,
            "labels": {"app.kubernetes.io/managed-by": MANAGER},
            "annotations": {ELECTION: election.name},
            "ownerReferences": [_owner(API_VERSION, KIND, election.name, election.uid)],
        },
        "spec": {"type": "ClusterIP", "ports": [_service_port(port) for port in service.ports]},
    }


def is_ours(found: Mapping[str, Any], election: Election) -> bool:
    """Whether a Service of that name was made for this Election, and not by somebody else."""
    return election.uid in _owners(found)


def wanted_ports(service: Service) -> list[Document]:
    """Return the ports of the Service as written."""
    return [_service_port(port) for port in service.ports]


def slice_of(
    election: Election, service: Service, view: View, pods: Sequence[Pod], *, uid: str, family: int
) -> Document:
    """Return the EndpointSlice of one address family.

    Args:
        election: whose leader it shows.
        service: the Service it is for.
        view: what etcd says.
        pods: of the election.
        uid: of that Service.
        family: 4 or 6.

    Without an endpoint when nobody leads or the leader's pod is gone: then `not_ready` is shown.
    """
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name_of(service.name, family),
            "namespace": election.namespace,
            "labels": {_SERVICE_NAME: service.name, _MANAGED_BY: MANAGER},
            "annotations": {TOKEN: str(view.token), ELECTION: election.name},
            "ownerReferences": [_owner("v1", "Service", service.name, uid)],
        },
        "addressType": FAMILIES[family],
        "ports": [_slice_port(port) for port in service.ports],
        "endpoints": _endpoints(pod_of_leader(view, pods), family),
    }


def name_of(service: str, family: int) -> str:
    """Return the name of the slice of a Service and an address family."""
    return f"{service}-{FAMILIES[family].lower()}"


def is_shown_by(found: Mapping[str, Any], election: Election) -> bool:
    """Whether a slice shows this Election's leader, and nobody else's endpoints.

    Its labels say less: they are what others take off, or put on, to lead a Service elsewhere.
    """
    annotations = found.get("metadata", {}).get("annotations") or {}
    return bool(annotations.get(ELECTION) == election.name)


def may_show(found: Mapping[str, Any], election: Election, uid: str) -> bool:
    """Whether a slice may be written for this Election: we have made it, whatever was taken off.

    Args:
        found: the slice as it is.
        election: whose leader it shall show.
        uid: of the Election's Service.
    """
    metadata = found.get("metadata", {})
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    if is_shown_by(found, election) or uid in _owners(found):
        return True
    return labels.get(_MANAGED_BY) == MANAGER and ELECTION not in annotations


def shown_term(found: Mapping[str, Any]) -> int:
    """Return the term that a slice shows, or 0."""
    text = str((found.get("metadata", {}).get("annotations") or {}).get(TOKEN, ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def agrees(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether what is there is what shall be, as far as it is ours."""
    metadata, ours = found.get("metadata", {}), wanted["metadata"]
    return bool(
        all(_holds(metadata.get(name) or {}, ours[name]) for name in ("labels", "annotations"))
        and _owners(wanted) <= _owners(found)
        and (found.get("endpoints") or []) == wanted["endpoints"]
        and (found.get("ports") or []) == wanted["ports"]
    )


def not_ready(found: Mapping[str, Any]) -> list[Document]:
    """Return the endpoints that a slice shows, as ones that nobody is led to."""
    off = {"ready": False, "serving": False}
    shown = found.get("endpoints") or ()
    return [{**each, "conditions": {**each.get("conditions", {}), **off}} for each in shown]


def families_of(found: Mapping[str, Any]) -> list[int]:
    """Return the address families of a Service as it is in the cluster."""
    named = found.get("spec", {}).get("ipFamilies") or ["IPv4"]
    return [family for family, name in FAMILIES.items() if name in named]


def _holds(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(found.get(name) == value for name, value in wanted.items())


def _owners(found: Mapping[str, Any]) -> set[str]:
    owners = found.get("metadata", {}).get("ownerReferences") or ()
    return {str(owner.get("uid")) for owner in owners}


def _endpoints(pod: Pod | None, family: int) -> list[Document]:
    if pod is None:
        return []
    address = next((a for a in pod.addresses if ipaddress.ip_address(a).version == family), None)
    if address is None:
        return []
    endpoint: Document = {
        "addresses": [address],
        "conditions": {
            "ready": not pod.is_leaving,
            "serving": not pod.is_leaving,
            "terminating": pod.is_leaving,
        },
        "targetRef": {
            "kind": "Pod",
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
        },
    }
    if pod.node:
        endpoint["nodeName"] = pod.node
    return [endpoint]


def _service_port(port: Port) -> Document:
    found: Document = {"name": port.name, "port": port.port, "targetPort": port.target}
    found["protocol"] = port.protocol
    return found | ({"appProtocol": port.app_protocol} if port.app_protocol else {})


def _slice_port(port: Port) -> Document:
    found: Document = {"name": port.name, "port": port.target, "protocol": port.protocol}
    return found | ({"appProtocol": port.app_protocol} if port.app_protocol else {})


def _owner(api_version: str, kind: str, name: str, uid: str) -> Document:
    return {"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}
