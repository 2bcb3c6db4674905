"""Volumes that lie on one node each, as real ones do; those that kind makes know no node."""

from pathlib import PurePosixPath

from tests.e2e.support.cluster import Cluster
from tests.e2e.support.kubectl import Kubectl, Object
from tests.e2e.support.sharing import folder
from tests.support.binaries import locked

STORAGE_CLASS = "leader-sidecar-e2e"
_PER_NODE = 8
_FOLDER = PurePosixPath("/var/local/leader-sidecar-e2e")


def claims(kubectl: Kubectl) -> dict[str, str]:
    """Return the volume of each claim of a namespace."""
    found = kubectl.get("persistentvolumeclaims")["items"]
    return {claim["metadata"]["name"]: claim["spec"].get("volumeName", "") for claim in found}


def provide_volumes(cluster: Cluster) -> None:
    """Make the storage class, and as many free and empty volumes on each node as there shall be."""
    if cluster.engine is None:
        return
    storage = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    with locked(folder() / "volumes.lock"):
        cluster.kubectl.apply(storage, *_lacking(cluster))


def _lacking(cluster: Cluster) -> list[Object]:
    """Return the volumes to make; what is there and used up is deleted."""
    there = {v["metadata"]["name"]: v for v in cluster.kubectl.get("persistentvolumes")["items"]}
    wanted = [
        (node["metadata"]["name"], number)
        for node in cluster.kubectl.get("nodes")["items"]
        for number in range(_PER_NODE)
    ]
    lacking: dict[str, list[int]] = {}
    for node, number in wanted:
        name = f"{node}-{number}"
        phase = there[name]["status"].get("phase") if name in there else None
        if phase in {"Available", "Bound"}:
            continue
        if phase is not None:
            cluster.kubectl.run("delete", "persistentvolume", name)
        lacking.setdefault(node, []).append(number)
    for node, numbers in lacking.items():
        each = " ".join(str(_FOLDER / str(number)) for number in numbers)
        cluster.on_node(node, "sh", "-ec", f"rm -rf {each}; mkdir -p {each}")
    return [
        _volume(f"{node}-{number}", node, str(_FOLDER / str(number)))
        for node, numbers in lacking.items()
        for number in numbers
    ]


def _volume(name: str, node: str, folder: str) -> Object:
    there = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "64Mi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": folder},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [there]}]}},
        },
    }
