"""What the pods of an etcd tell each other: whether they have data, as an annotation of their own.

A pod says it before its etcd starts. So "empty" is outdated once etcd has run in that pod, which
the kubelet tells: such a pod counts as having data. A new pod of the same name has said nothing.

Members begin one after the other, and a lone one answers nobody. So who begins first writes down
which pods it saw empty, by their uids: each of these may follow it, as long as it is that pod and
its etcd has never run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.cluster.api import Api, ApiError
from sidecar.cluster.deciding import Data

ANNOTATION = "leader-sidecar.io/etcd-data"
BEGAN = "leader-sidecar.io/etcd-began-with"
CONTAINER = "etcd"


class Pods:
    """The pods of one etcd.

    Args:
        name: the own pod's.
        uid: the own pod's, for Events; "" when it is not known.
    """

    def __init__(self, api: Api, namespace: str, name: str, uid: str = "") -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._uid = uid
        self._uids: list[str] = []

    def declare(self, data: Data) -> None:
        """Tell the others what is in the own directory.

        Raises:
            ApiError: the annotation was not written.
        """
        patch = {"metadata": {"annotations": {ANNOTATION: data.value}}}
        self._api.merge(self._path(self._name), patch)

    def look(self, names: Sequence[str]) -> dict[str, Data]:
        """Return what each of these pods has.

        Raises:
            ApiError: the pods cannot be read.
        """
        pods = {name: self._api.find(self._path(name)) for name in names}
        self._uids = [pod["metadata"].get("uid", "") for pod in pods.values() if pod]
        own = self._api.find(self._path(self._name))
        uid = self._uid if own is not None and not _has_run(own) else ""
        return {name: data_of(pod, uid) for name, pod in pods.items()}

    def declare_beginning(self) -> None:
        """Tell the others that a cluster begins, with those that were seen by the last look.

        Raises:
            ApiError: the annotation was not written.
        """
        patch = {"metadata": {"annotations": {BEGAN: ",".join(self._uids)}}}
        self._api.merge(self._path(self._name), patch)

    def tell(self, reason: str, message: str, *, now: dt.datetime) -> str | None:
        """Write an Event on the own pod; return why it could not be written, or None."""
        event = {
            "metadata": {"generateName": f"{self._name}.", "namespace": self._namespace},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": self._name,
                "namespace": self._namespace,
                "uid": self._uid,
            },
            "type": "Warning",
            "reason": reason,
            "message": message[:1024],
            "source": {"component": "leader-sidecar"},
            "firstTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "lastTimestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "count": 1,
        }
        try:
            self._api.create(f"/api/v1/namespaces/{self._namespace}/events", event)
        except ApiError as exc:
            return str(exc)
        return None

    def _path(self, name: str) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods/{name}"


def data_of(pod: Mapping[str, Any] | None, own_uid: str = "") -> Data:
    """Tell what a pod has, from the object that describes it.

    What it has begun together with the pod of `own_uid`, which never ran etcd, is no data yet.
    """
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return Data.UNKNOWN
    annotations = pod["metadata"].get("annotations", {})
    if own_uid and own_uid in annotations.get(BEGAN, "").split(","):
        return Data.EMPTY
    told = annotations.get(ANNOTATION)
    if told == Data.PRESENT.value or _has_run(pod):
        return Data.PRESENT
    return Data.EMPTY if told == Data.EMPTY.value else Data.UNKNOWN


def _has_run(pod: Mapping[str, Any]) -> bool:
    statuses = pod.get("status", {}).get("containerStatuses", [])
    return any(
        status["restartCount"] or set(status["state"]) & {"running", "terminated"}
        for status in statuses
        if status["name"] == CONTAINER and status.get("state")
    )
