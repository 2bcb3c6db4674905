"""Upgrades, rollbacks, `helm test`, and another release beside it."""

from typing import Any

import pytest

from tests.e2e.support.cluster import CONTROL_PLANE
from tests.e2e.support.kubectl import Object
from tests.e2e.support.release import Release, Values

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

# However little space is wasted, defragmenting finds something to do.
VALUES: Values = {"etcd": {"replicas": 1, "defragmentation": {"wasted": 0}}}
PRIORITY = "leader-sidecar-e2e"
TOLERATED = {"key": CONTROL_PLANE, "operator": "Exists"}
SPOT = {"key": "example.org/spot", "operator": "Exists"}
SMALL = {"requests": {"cpu": "20m", "memory": "80Mi"}, "limits": {"memory": "300Mi"}}
MASTER = {
    "replicas": 3,
    "env": [{"name": "MASTER_ID", "value": "k8s"}, {"name": "SEASON", "value": "autumn"}],
    "ports": [
        {"name": "http", "containerPort": 8081, "forwardPort": 8082, "servicePort": 8081},
        {"name": "grpc", "containerPort": 9091, "forwardPort": 9092, "servicePort": 9093},
        {"name": "admin", "containerPort": 8083, "servicePort": 8083},
    ],
    "startupProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "failureThreshold": 30},
    "livenessProbe": {"periodSeconds": 15},
    "readinessProbe": {"periodSeconds": 1, "failureThreshold": 10},
    "stopSeconds": 15,
    "stopDelaySeconds": 2,
    "resources": SMALL,
    "podLabels": {"example.org/team": "shop"},
    "podAnnotations": {"example.org/release": "{{ .Release.Name }}"},
    "topologySpreadConstraints": [],
    "tolerations": [TOLERATED, SPOT],
    "priorityClassName": PRIORITY,
    "podDisruptionBudget": {"maxUnavailable": 2},
}
SIDECAR = {
    "ttl": "6s",
    "margin": "1s",
    "drain": 1,
    "priority": 50,
    "health": {"interval": "2s", "failures": 2},
    "statusPort": 4041,
    "logFormat": "json",
    "logLevel": "debug",
    "extraEnv": [{"name": "SEASON", "value": "autumn"}],
    "resources": SMALL,
}
ETCD = {
    "replicas": 1,
    "quotaBackendBytes": 40 << 20,
    "autoCompactionRetention": "2h",
    "heartbeatInterval": 150,
    "electionTimeout": 1500,
    "config": {"log-level": "warn"},
    "persistence": {"whenScaled": "Retain"},
    "antiAffinity": "preferred",
    "tolerations": [TOLERATED, SPOT],
    "topologySpreadConstraints": [],
    "priorityClassName": PRIORITY,
    "resources": SMALL,
    "helperResources": SMALL,
    "podAnnotations": {"example.org/release": "a"},
    "podDisruptionBudget": {"enabled": False},
    "defragmentation": {"schedule": "0 4 * * *", "wasted": 0.25},
}
MAY_CHANGE: dict[str, Any] = {
    "commonLabels": {"example.org/part-of": "shop"},
    "commonAnnotations": {"example.org/owner": "shop"},
    "master": MASTER,
    "sidecar": SIDECAR,
    "forwarder": {"wait": "8s", "drain": "1s", "linger": 6},
    "etcd": ETCD,
    "service": {"type": "NodePort", "annotations": {"example.org/a": "b"}},
    "networkPolicy": {"enabled": True},
    "monitoring": {"dashboard": {"enabled": True, "labels": {"board": "1"}}},
    "tests": {"enabled": False},
    "extraObjects": [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": PRIORITY},
            "value": 1000,
        }
    ],
}
KINDS = (
    "configmaps,cronjobs,deployments,networkpolicies,persistentvolumeclaims,poddisruptionbudgets,"
    "rolebindings,roles,secrets,serviceaccounts,services,statefulsets"
)


def as_applied(thing: Object) -> Object:
    """Return what was asked for: an object without what the cluster writes down about it."""
    metadata = thing["metadata"]
    annotations = dict(metadata.get("annotations", {}))
    annotations.pop("deployment.kubernetes.io/revision", None)
    labels = metadata.get("labels", {})
    asked = {key: value for key, value in thing.items() if key not in {"metadata", "status"}}
    return {**asked, "metadata": {"labels": labels, "annotations": annotations}}


def objects(release: Release) -> dict[str, Object]:
    """Return all that the release consists of, by kind and name."""
    selector = f"app.kubernetes.io/instance={release.name}"
    found = release.kubectl.get(KINDS, "-l", selector)["items"]
    return {f"{one['kind']} {one['metadata']['name']}": as_applied(one) for one in found}


def goes_on(before: list[Object], after: list[Object]) -> bool:
    """Return whether a history is that before, and maybe more."""
    *ended, running = before
    return after[: len(ended)] == ended and after[len(ended)]["token"] == running["token"]


def test_helm_test_passes(release: Release) -> None:
    release.settled()
    assert "Phase:          Succeeded" in release.helm("test", "--timeout=3m")


def test_values_that_may_change_do_and_a_rollback_takes_them_back(release: Release) -> None:
    first, terms, values = objects(release), release.history(), dict(release.values)
    release.upgrade(**MAY_CHANGE)
    leader = release.settled()
    changed = objects(release)
    assert {name for name in first if changed.get(name) == first[name]} == {
        "PersistentVolumeClaim data-demo-etcd-0"
    }
    assert goes_on(terms, release.history())
    (found,) = [pod for pod in release.pods() if pod["metadata"]["name"] == leader.pod]
    assert "--ttl=6s" in found["spec"]["initContainers"][0]["args"]
    assert found["spec"]["priority"] == 1000
    release.helm("rollback", "1", "--wait", "--timeout=8m")
    release.values = values
    release.settled()
    assert objects(release) == first
    assert goes_on(terms, release.history())


def test_the_space_of_etcd_is_given_back_on_demand(release: Release) -> None:
    before = release.settled()
    release.kubectl.run("create", "job", "now", "--from=cronjob/demo-etcd-defragmentation")
    release.kubectl.run("wait", "--for=condition=Complete", "job/now", "--timeout=180s")
    assert "defragmented demo-etcd-0: " in release.kubectl.run("logs", "job/now")
    release.kubectl.run("delete", "job", "now")
    assert release.settled() == before


def test_masters_are_scaled_down_to_one_and_up_to_five(release: Release) -> None:
    before = release.settled()
    release.upgrade(master={"replicas": 1})
    assert release.settled() == before
    release.upgrade(master={"replicas": 5})
    assert release.settled() == before
    release.upgrade(master={"replicas": 3})
    assert release.settled() == before


def test_another_release_in_the_namespace_has_its_own_election(release: Release) -> None:
    mine = release.settled()
    other = Release(release.cluster, release.namespace, "other", values={"etcd": {"replicas": 1}})
    other.install()
    try:
        theirs = other.settled()
        assert theirs.pod.startswith("other-")
        assert release.settled() == mine
    finally:
        other.uninstall()
    assert release.settled() == mine
