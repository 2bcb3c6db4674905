"""Wrong values are refused, and the message names the value."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sidecar.core.keys import name_problem
from tests.support.binaries import HELMS
from tests.support.helm import (
    CHART,
    KUBERNETES,
    Object,
    one,
    pod_of,
    refusal,
    render,
    run_helm,
)

BY_SCHEMA = {
    "master.replica=3": "/master",
    "masters.replicas=3": "masters",
    "master.replicas=three": "/master/replicas",
    "master.replicas=0": "/master/replicas",
    "master.kind=DaemonSet": "/master/kind",
    "etcd.replicas=2": "/etcd/replicas",
    "sidecar.ttl=5m": "/sidecar/ttl",
    "sidecar.ttl=1": "/sidecar/ttl",
    "operator.ttl=0s": "/operator/ttl",
    "forwarder.wait=1h": "/forwarder/wait",
    "master.stopDelaySeconds=4": "/master/stopDelaySeconds",
    "fullnameOverride=my.app": "/fullnameOverride",
    "nameOverride=My app": "/nameOverride",
    "commonLabels.team=a b": "/commonLabels/team",
    "etcd.defragmentation.schedule=weekly": "/etcd/defragmentation/schedule",
    "sidecar.readiness=both": "/sidecar/readiness",
    "sidecar.drain=-1": "/sidecar/drain",
    "sidecar.election=/a/": "/sidecar/election",
    "sidecar.statusPort=70000": "/sidecar/statusPort",
    "tls.mode=yes": "/tls/mode",
    "users.mode=basic": "/users/mode",
    "etcd.external.endpoints=etcd:2379": "/etcd/external/endpoints",
    "etcd.external.endpoints=https://etcd": "/etcd/external/endpoints",
    "etcd.persistence.size=big": "/etcd/persistence/size",
    "etcd.quotaBackendBytes=1000": "/etcd/quotaBackendBytes",
    "image.pullPolicy=Sometimes": "/image/pullPolicy",
    "image.digest=latest": "/image/digest",
    "tls.certManager.issuerRef.names=x": "/tls/certManager/issuerRef",
    "operator.resources.cpu=1": "/operator/resources",
    "master.env[0].name=A,master.env[0].value=1": "/master/env/0/value",
    "worker.env[0].name=A,worker.env[0].valu=b": "/worker/env/0",
    "rbac.admissionPolicy=maybe": "/rbac/admissionPolicy",
    "master.ports[0].name=HTTP": "/master/ports/0",
    "master.ports[0].name=80-81": "/master/ports/0",
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
    (
        "etcd.heartbeatInterval=201",
    ): "etcd.electionTimeout: 1000 is too short; give at least five times",
    ("etcd.config.data-dir=/x",): "etcd.config: data-dir differs between members",
    ("etcd.persistence.size=0.5Gi",): "etcd.quotaBackendBytes: 536870912 does not fit into",
    ("sidecar.election=/a//b",): "sidecar.election: /a//b has //",
    ("sidecar.election=/a/../b",): "sidecar.election: /a/../b has a segment . or ..",
    ("sidecar.election=/a.history",): "sidecar.election: /a.history ends in .control or .history",
    ("sidecar.margin=499ms",): "sidecar.margin: 499ms does not go with sidecar.ttl 5s",
    ("sidecar.margin=5",): "sidecar.margin: 5 does not go with sidecar.ttl 5s",
    ("sidecar.health.interval=99ms",): "sidecar.health.interval: 99ms is too short",
    ("sidecar.statusPort=8080",): "master.ports: the forwardPort 8080 of http is taken by sidecar",
    ("sidecar.statusPort=8081",): "master.ports: the servicePort 8081 of http is taken by sidecar",
    ("sidecar.statusPort=9091",): "master.ports: the servicePort 9091 of grpc is taken by sidecar",
    (
        r"commonLabels.app\.kubernetes\.io/instance=x",
    ): "commonLabels: app.kubernetes.io/instance is",
    (
        r"master.podLabels.app\.kubernetes\.io/name=x",
    ): "master.podLabels: app.kubernetes.io/name is",
    ("tls.certManager.issuerRef.kind=Issuer",): "tls.certManager.issuerRef: has no name",
    ("users.extra[0].name=root",): "users.extra: the name root is there twice, or is the chart's",
    (
        "users.extra[0].name=a",
        "users.extra[1].name=a",
    ): "users.extra: the name a is there twice, or is the chart's",
    (
        "users.extra[0].name=a",
        "users.extra[0].elections[0]=/x/",
    ): 'users.extra: the election "/x/" ends in /',
}
PORTS = {
    "[{name: web, containerPort: 8081, servicePort: 80}]": "asks the port http, which is none",
    "[{name: http, containerPort: 8081, forwardPort: 8081, servicePort: 1}]": (
        "listens on 8081 (http)"
    ),
    "[{name: a, containerPort: 4040, servicePort: 1}]": "listens on 4040 (sidecar.statusPort)",
    """[{name: http, containerPort: 8081, forwardPort: 2, servicePort: 1},
        {name: b, containerPort: 3, forwardPort: 2, servicePort: 3}]""": "2 of b is taken by http",
    """[{name: http, containerPort: 8081, servicePort: 1},
        {name: b, containerPort: 3, servicePort: 1}]""": "servicePort 1 of b is taken by http",
    """[{name: administration, containerPort: 1, forwardPort: 2, servicePort: 1},
        {name: administrators, containerPort: 3, forwardPort: 4, servicePort: 3}]""": (
        "of administrators would be called fwd-administrat"
    ),
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


@pytest.mark.parametrize(("ports", "told"), PORTS.items(), ids=list(PORTS.values()))
def test_ports_that_meet_in_a_pod_or_a_service_are_refused(ports: str, told: str) -> None:
    said = refusal(values=f"{{master: {{ports: {ports}}}}}")
    assert "master.ports" in said
    assert told in said


def test_a_health_check_that_could_never_succeed_is_refused() -> None:
    own = {"ports": [{"name": "http", "containerPort": 80, "servicePort": 80}]}
    assert "sidecar.health.http: asks 127.0.0.1:8081" in refusal(values=json.dumps({"master": own}))
    none = {"master": own, "sidecar": {"health": {"http": ""}}}
    assert "--health-http" not in str(sidecar_of(render(values=json.dumps(none))))


@pytest.mark.parametrize("release", ["1demo", "my.app"])
def test_a_release_that_could_not_name_a_service_is_refused(release: str) -> None:
    done = run_helm("template", release, str(CHART), "--kube-version", KUBERNETES)
    assert f"fullnameOverride: a Service cannot be called {release}" in done.stderr


def test_elections_have_the_names_that_the_sidecar_takes() -> None:
    for name in ("a", "/a", "/a.b/c", "/a/b.controls", "/.a/b..c", "/a.control/b", "/a/\x01", "/ä"):
        values = f"sidecar: {{election: {json.dumps(name)}}}"
        if name_problem(name) is None:
            assert f"--election={name}" in sidecar_of(render(values=values))["args"]
        else:
            assert "sidecar.election: " in refusal(values=values)


def test_durations_may_be_numbers_of_seconds() -> None:
    values = (
        "{sidecar: {ttl: 15, margin: 2.5, health: {interval: 2}}, forwarder: {wait: 7, drain: 1}}"
    )
    arguments = sidecar_of(render(values=values))["args"]
    for wanted in ("--ttl=15", "--margin=2.5", "--health-interval=2", "--forward-wait=7"):
        assert wanted in arguments


NOTHING = (
    "commonLabels",
    "commonAnnotations",
    "etcd.config",
    "master.podLabels",
    "master.livenessProbe",
    "master.readinessProbe",
    "master.topologySpreadConstraints",
    "sidecar.election",
    "sidecar.health",
    "sidecar.health.interval",
    "sidecar.margin",
    "users.extra",
)


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("name", NOTHING)
def test_a_default_may_be_taken_away(name: str, version: str) -> None:
    assert render(f"{name}=null", version=version)


def test_a_program_may_have_other_probes_than_the_crawler_or_none() -> None:
    def program(*choices: str) -> Object:
        pod = pod_of(one(render(*choices), "Deployment"))
        assert pod is not None
        (found,) = pod["containers"]
        assert isinstance(found, dict)
        return found

    assert "livenessProbe" not in program("master.livenessProbe=null")
    by_port = ("master.livenessProbe.tcpSocket.port=grpc", "master.livenessProbe.httpGet=null")
    assert set(program(*by_port)["livenessProbe"]) == {
        "tcpSocket",
        "periodSeconds",
        "failureThreshold",
    }
    assert "master.livenessProbe: has httpGet and tcpSocket" in refusal(by_port[0])


def sidecar_of(objects: list[Object]) -> Object:
    """The sidecar's container."""
    pod = pod_of(one(objects, "Deployment"))
    assert pod is not None
    (found,) = pod["initContainers"]
    assert isinstance(found, dict)
    return found


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
        if values == {}:
            return True  # by default nothing is there that could be named
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
