"""The kind Election: wrong objects are refused at `kubectl apply` by the field's name."""

from typing import Any

import pytest

from tests.e2e.operator.api_server import Object, election_kind
from tests.e2e.operator.shop import Shop
from tests.operator.refused import BY_NAME, BY_SIDECAR, BY_SPEC, TAKEN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

HTTP, HTTPS = ["http://etcd:2379"], ["https://etcd:2379"]
WINDOW = {"start": "02:30", "duration": "2h"}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no election": ({"election": None}, "spec.election"),
    "a trailing slash": ({"election": "/a/"}, "spec.election: must not end in '/'"),
    "two slashes": ({"election": "/a//b"}, "spec.election: must not"),
    "our own ending": ({"election": "/a.control"}, "spec.election: must not end in"),
    "dots": ({"election": "/a/../b"}, "spec.election: must not have a segment"),
    "a control character": ({"election": "/a\u0007"}, "spec.election: must not hold control"),
    "no etcd": ({"etcd": None}, "spec.etcd"),
    "no endpoint": ({"etcd": {"endpoints": []}}, "spec.etcd.endpoints"),
    "no scheme": ({"etcd": {"endpoints": ["etcd:2379"]}}, "spec.etcd.endpoints: must be http://"),
    "no port": ({"etcd": {"endpoints": ["http://etcd"]}}, "spec.etcd.endpoints: must be http://"),
    "two schemes": ({"etcd": {"endpoints": [*HTTP, *HTTPS]}}, "spec.etcd.endpoints: http:// and"),
    "a user without a password": (
        {"etcd": {"endpoints": HTTP, "user": "a"}},
        "spec.etcd.user and spec.etcd.passwordSecret",
    ),
    "a certificate from nowhere": (
        {"etcd": {"endpoints": HTTPS, "clientCertificate": True}},
        "spec.etcd.tlsSecret: is missing",
    ),
    "TLS without TLS": (
        {"etcd": {"endpoints": HTTP, "tlsSecret": "a"}},
        "spec.etcd.tlsSecret: needs endpoints with https://",
    ),
    "In without values": (
        {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "matchExpressions: In and NotIn need values",
    ),
    "an unknown operator": (
        {"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
        "spec.selector.matchExpressions[0].operator",
    ),
    "no duration": ({"sidecar": {"ttl": "soon"}}, "spec.sidecar.ttl"),
    "two probes": (
        {"sidecar": {"health": {"http": "http://a:1", "tcp": "a:1"}}},
        "spec.sidecar.health: give at most one",
    ),
    "a port to itself": (
        {"sidecar": {"forward": [{"port": 1, "to": 1}]}},
        "spec.sidecar.forward: port and to must differ",
    ),
    "a port that is none": (
        {"sidecar": {"forward": [{"port": 0, "to": 1}]}},
        "spec.sidecar.forward[0].port",
    ),
    "two preferences": (
        {"preferred": {"candidate": "a", "podSelector": {}}},
        "spec.preferred: give exactly one",
    ),
    "no preference": ({"preferred": {}}, "spec.preferred: give exactly one"),
    "a term of no length": ({"maxTermDuration": "soon"}, "spec.maxTermDuration: must be a dur"),
    "no time of day": (
        {"maintenanceWindows": [{**WINDOW, "start": "24:00"}]},
        "spec.maintenanceWindows.start",
    ),
    "no day": (
        {"maintenanceWindows": [{**WINDOW, "days": ["Monday"]}]},
        "spec.maintenanceWindows[0].days[0]",
    ),
    "a window without length": (
        {"maintenanceWindows": [{"start": "02:30"}]},
        "spec.maintenanceWindows[0].duration",
    ),
    "a Service without ports": ({"service": {"name": "a"}}, "spec.service.ports: is missing"),
    "paused in words": ({"paused": "yes"}, "spec.paused"),
    "a field that is none": ({"pause": True}, "spec.pause"),
    **BY_SPEC,
    **{what: ({"sidecar": sidecar}, said) for what, (sidecar, said) in BY_SIDECAR.items()},
}


def with_spec(shop: Shop, **spec: Any) -> Object:
    made = shop.election(**spec)
    made["spec"] = {name: value for name, value in made["spec"].items() if value is not None}
    return made


@pytest.mark.parametrize(("spec", "named"), WRONG.values(), ids=list(WRONG))
def test_a_wrong_object_is_refused_and_the_field_named(
    shop: Shop, spec: dict[str, Any], named: str
) -> None:
    done = shop.server.apply(with_spec(shop, **spec))
    assert done.returncode != 0, done.stdout
    assert named in done.stderr


@pytest.mark.parametrize("name", BY_NAME)
def test_an_election_that_names_no_service_has_a_name_that_one_can_have(
    shop: Shop, name: str
) -> None:
    spec, said = BY_NAME[name]
    made = shop.election(**spec)
    made["metadata"]["name"] = name
    done = shop.server.apply(made)
    assert done.returncode != 0, done.stdout
    assert said in done.stderr
    made["spec"]["service"]["name"] = "web"
    shop.server.must_apply(made)
    del made["spec"]["service"]["name"]
    made["metadata"]["name"] = "a" * 56
    shop.server.must_apply(made)


RIGHT: dict[str, dict[str, Any]] = {
    **TAKEN,
    "the least": {},
    "everything": {
        "etcd": {
            "endpoints": ["https://etcd-0.etcd.shop.svc:2379", "https://[fd00::1]:2379/"],
            "tlsSecret": "a",
            "clientCertificate": True,
            "user": "a",
            "passwordSecret": "b",
        },
        "sidecar": {
            "image": "a",
            "ttl": "5s",
            "drain": "500ms",
            "health": {"exec": "check", "interval": "1s", "failures": 3},
            "forward": [{"port": 1, "to": 2}],
            "resources": {"limits": {"memory": "1Gi"}},
        },
        "paused": False,
        "preferred": {"nodeSelector": {"matchLabels": {"a": "b"}}},
        "maxTermDuration": "1.5h",
        "maintenanceWindows": [{**WINDOW, "days": ["Sat", "Sun"]}],
        "service": {"ports": [{"name": "a", "port": 1, "protocol": "UDP"}]},
    },
}


@pytest.mark.parametrize("spec", RIGHT.values(), ids=list(RIGHT))
def test_a_right_object_is_taken(shop: Shop, spec: dict[str, Any]) -> None:
    shop.server.must_apply(with_spec(shop, **spec))
    assert shop.server.apply(with_spec(shop, **spec)).stdout.strip().endswith("unchanged")


def test_the_election_of_an_election_cannot_be_changed(shop: Shop) -> None:
    shop.server.must_apply(shop.election())
    done = shop.server.apply(shop.election(election="/other"))
    assert "spec.election: cannot be changed" in done.stderr


def test_the_kind_is_changed_in_place_with_objects_in_it(shop: Shop) -> None:
    shop.server.must_apply(shop.election())
    uid = shop.server.admin.get(shop.election_path)["metadata"]["uid"]
    kind = election_kind()
    columns = kind["spec"]["versions"][0]["additionalPrinterColumns"]
    columns.append({"name": "NEW", "type": "string", "jsonPath": ".spec.election"})
    try:
        shop.server.must_apply(kind)
        shop.until(
            lambda: "NEW" in shop.server.kubectl("get", "elect", "-n", shop.namespace).stdout,
            "the new column is there",
        )
        assert shop.server.admin.get(shop.election_path)["metadata"]["uid"] == uid
    finally:
        columns.pop()
        shop.server.must_apply(kind)


@pytest.mark.parametrize(("verb", "role"), [("list", "view"), ("create", "edit")])
def test_whoever_may_view_or_edit_a_namespace_may_do_so_with_elections(
    shop: Shop, verb: str, role: str
) -> None:
    # What the controller manager would bring together, it would find by these labels.
    found = shop.server.admin.get(
        f"/apis/rbac.authorization.k8s.io/v1/clusterroles/leader-sidecar-elections-{role}"
    )
    assert found["metadata"]["labels"][f"rbac.authorization.k8s.io/aggregate-to-{role}"] == "true"
    assert verb in found["rules"][0]["verbs"]
