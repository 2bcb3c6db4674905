"""Wrong values are refused, and the message names the value."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.binaries import HELMS
from tests.support.helm import CHART, refusal

BY_SCHEMA = {
    "master.replica=3": "/master",
    "masters.replicas=3": "masters",
    "master.replicas=three": "/master/replicas",
    "master.replicas=0": "/master/replicas",
    "master.kind=DaemonSet": "/master/kind",
    "etcd.replicas=2": "/etcd/replicas",
    "sidecar.ttl=5m": "/sidecar/ttl",
    "sidecar.readiness=both": "/sidecar/readiness",
    "sidecar.drain=-1": "/sidecar/drain",
    "sidecar.election=/a/": "/sidecar/election",
    "sidecar.statusPort=70000": "/sidecar/statusPort",
    "tls.mode=yes": "/tls/mode",
    "users.mode=basic": "/users/mode",
    "etcd.external.endpoints=etcd:2379": "/etcd/external/endpoints",
    "etcd.persistence.size=big": "/etcd/persistence/size",
    "etcd.quotaBackendBytes=1000": "/etcd/quotaBackendBytes",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "image.digest=latest": "/image/digest",
    "rbac.admissionPolicy=maybe": "/rbac/admissionPolicy",
    "master.ports[0].name=HTTP": "/master/ports/0",
    "monitoring.prometheusRule.enable=true": "/monitoring/prometheusRule",
}
BY_TEMPLATE = {
    (
        "master.terminationGracePeriodSeconds=29",
    ): "master.terminationGracePeriodSeconds: 29 is too short; give 30",
    ("etcd.enabled=false",): "etcd.external.endpoints: is empty",
    (
        "etcd.enabled=false",
        "etcd.external.endpoints=http://a:1",
        "tls.mode=helm",
    ): "tls.mode: is for the etcd of",
    (
        "etcd.enabled=false",
        "etcd.external.endpoints=http://a:1",
        "users.mode=password",
    ): "users.mode: is for the",
    ("users.mode=certificate",): "users.mode: certificate needs certificates",
    ("etcd.external.user=a",): "etcd.external.passwordSecret: is empty",
    ("etcd.external.clientCertificate=true",): "etcd.external.tlsSecret: is empty",
    ("tls.mode=existingSecret",): "tls.existingSecret.server: is empty",
    ("sidecar.health.tcp=127.0.0.1:8081",): "sidecar.health: http and tcp are given",
    ("sidecar.readiness=leader",): "sidecar.readiness: leader would keep every rollout",
    (
        "sidecar.readiness=leader",
        "master.kind=StatefulSet",
    ): "sidecar.readiness: leader would keep the rollout",
    ("master.volumeClaimTemplates[0].metadata.name=a",): "master.volumeClaimTemplates: need",
    (
        r"master.podLabels.leader-sidecar\.io/role=leader",
    ): "master.podLabels: leader-sidecar.io/role",
    (
        "master.ports[0].name=status",
        "master.ports[0].containerPort=1",
        "master.ports[0].servicePort=1",
    ): "master.ports: the name status",
    ("etcd.heartbeatInterval=1000",): "etcd.electionTimeout: must be several times",
}


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize(("choice", "named"), BY_SCHEMA.items(), ids=list(BY_SCHEMA))
def test_a_wrong_value_is_refused_by_its_name(choice: str, named: str, version: str) -> None:
    assert named in refusal(choice, version=version)


@pytest.mark.parametrize(
    ("choices", "told"), BY_TEMPLATE.items(), ids=[" ".join(c) for c in BY_TEMPLATE]
)
def test_values_that_do_not_go_together_are_refused(choices: tuple[str, ...], told: str) -> None:
    assert told in refusal(*choices)


def described(schema: Any, path: str = "") -> Iterator[str]:
    """The paths of all values that the schema knows one by one."""
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        if "properties" in inner:
            yield from described(inner, here)
        else:
            yield here


def has(values: Any, path: str) -> bool:
    for name in path.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def test_the_schema_and_the_values_name_the_same() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"global"}  # Helm's own, for charts that hold this one
    # What is asked of a cluster is Kubernetes' own to name.
    assert not [p for p in described(schema) if p not in free and not has(values, p)]


def closed(schema: Any, path: str = "") -> Iterator[str]:
    """The paths of all sections of the schema that take names that they do not know."""
    if "properties" in schema:
        if "additionalProperties" not in schema:
            yield path or "the whole"
        for name, inner in schema["properties"].items():
            yield from closed(inner, f"{path}.{name}".lstrip("."))


def test_no_section_of_the_schema_takes_what_it_does_not_know() -> None:
    assert not list(closed(json.loads((CHART / "values.schema.json").read_text())))
