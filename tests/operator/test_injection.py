"""The sidecar that is put into pods, by the webhook and by `inject -f`."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConfigError
from sidecar.operator.injection import Defaults, injected, patch, wants_sidecar
from sidecar.operator.manifests import inject
from sidecar.settings import Settings
from tests.chart.schemas import problems
from tests.operator.things import Document, document, election
from tests.support.helm import CHART

DEFAULTS = Defaults("registry.example/leader-sidecar:1")
TEMPLATE: Document = {
    "metadata": {
        "labels": {"app": "web", "leader-sidecar.io/inject": "true"},
        "annotations": {"leader-sidecar.io/election": "master"},
    },
    "spec": {
        "initContainers": [{"name": "setup", "image": "setup:1"}],
        "containers": [
            {"name": "web", "image": "web:1", "volumeMounts": [{"name": "d", "mountPath": "/d"}]},
            {"name": "log", "image": "log:1"},
        ],
        "volumes": [{"name": "d", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 60,
    },
}
RICH = {
    "image": "other:2",
    "ttl": "10s",
    "drain": "1500ms",
    "priority": 50,
    "statusPort": 4141,
    "health": {"http": "http://127.0.0.1:8080/healthz", "interval": "2s", "failures": 5},
    "forward": [{"port": 8080, "to": 9090}, {"port": 8081, "to": 9091}],
    "extraArgs": ["--log-format=json"],
}


def deployment(template: Document | None = None) -> Document:
    """A Deployment with such pods."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": copy.deepcopy(template or TEMPLATE),
        },
    }


def container(pod: Document, name: str = "leader-sidecar") -> Document:
    spec = pod["spec"]
    (found,) = (c for c in spec["initContainers"] + spec["containers"] if c["name"] == name)
    assert isinstance(found, dict)
    return found


def applied(before: Document, operations: list[Document]) -> Document:
    """What the API server makes of a JSON patch of whole fields."""
    after = copy.deepcopy(before)
    for each in operations:
        *parents, last = each["path"].strip("/").split("/")
        place = after
        for name in parents:
            place = place[name]
        assert each["op"] == ("replace" if last in place else "add")
        place[last] = each["value"]
    return after


def test_a_pod_gets_the_sidecar_behind_its_own_init_containers() -> None:
    found = injected(TEMPLATE, election(), DEFAULTS)
    assert [c["name"] for c in found["spec"]["initContainers"]] == ["setup", "leader-sidecar"]
    sidecar = container(found)
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["image"] == "registry.example/leader-sidecar:1"
    assert "--label=false" in sidecar["args"]
    assert found["metadata"]["annotations"]["leader-sidecar.io/labelled-by"] == "operator"
    for name in ("web", "log", "setup"):
        mounts = container(found, name)["volumeMounts"]
        assert {
            "name": "leader-sidecar",
            "mountPath": "/run/leader-sidecar",
            "readOnly": True,
        } in mounts
    assert found["spec"]["terminationGracePeriodSeconds"] == 60 + 5


def test_an_injected_sidecar_asks_for_as_much_as_the_charts_and_may_do_as_little() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    sidecar = container(injected(TEMPLATE, election(), DEFAULTS))
    for same in ("resources", "securityContext"):
        assert sidecar[same] == values["sidecar"][same]


def test_what_the_election_says_is_in_the_sidecar() -> None:
    found = injected(TEMPLATE, election(sidecar=RICH), DEFAULTS)
    sidecar = container(found)
    assert sidecar["image"] == "other:2"
    assert {
        "--ttl=10s",
        "--drain=1500ms",
        "--priority=50",
        "--http=:4141",
        "--health-http=http://127.0.0.1:8080/healthz",
        "--forward=:8080=9090,:8081=9091",
        "--log-format=json",
    } <= set(sidecar["args"])
    assert [p["containerPort"] for p in sidecar["ports"]] == [4141, 8080, 8081]
    assert found["spec"]["terminationGracePeriodSeconds"] == 60 + 7 + 5


@pytest.mark.parametrize("sidecar", [{}, RICH])
def test_the_sidecar_takes_the_arguments_it_is_given(sidecar: Document, tmp_path: Any) -> None:
    arguments = container(injected(TEMPLATE, election(sidecar=sidecar), DEFAULTS))["args"]
    assert arguments[0] == "run"
    given = dict(a.removeprefix("--").split("=", 1) for a in arguments[1:])
    given["status-dir"] = str(tmp_path)
    read = Settings.read(
        {name.replace("-", "_"): text for name, text in given.items()},
        environment={"POD_NAME": "web-0", "POD_IP": "10.0.0.1"},
    )
    assert read.label is None
    assert read.store.election == election().election


def test_credentials_are_mounted_where_the_sidecar_looks_for_them() -> None:
    etcd = {
        "endpoints": ["https://etcd:2379"],
        "tlsSecret": "etcd-tls",
        "clientCertificate": True,
        "user": "sidecar",
        "passwordSecret": "etcd-user",
    }
    found = injected(TEMPLATE, election(etcd=etcd), DEFAULTS)
    sidecar = container(found)
    env = {e["name"]: e.get("value") for e in sidecar["env"]}
    (volume,) = (v for v in found["spec"]["volumes"] if v["name"] == "leader-sidecar-etcd")
    (mount,) = (m for m in sidecar["volumeMounts"] if m["name"] == "leader-sidecar-etcd")
    paths = {
        f"{mount['mountPath']}/{item['path']}"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    named = {env[f"LEADER_SIDECAR_{n}"] for n in ("CACERT", "CERT", "KEY", "PASSWORD_FILE")}
    assert named == paths
    assert env["LEADER_SIDECAR_USER"] == "sidecar"
    assert all(m["name"] != "leader-sidecar-etcd" for m in container(found, "web")["volumeMounts"])


@pytest.mark.parametrize("sidecar", [{}, RICH])
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_kubernetes_knows_every_field_of_an_injected_pod(sidecar: Document, version: str) -> None:
    made = injected(TEMPLATE, election(sidecar=sidecar), DEFAULTS)
    assert problems(deployment(made), version) == []


def test_a_pod_that_has_the_sidecar_is_left_as_it_is() -> None:
    once = injected(TEMPLATE, election(), DEFAULTS)
    assert injected(once, election(sidecar=RICH), DEFAULTS) == once
    assert patch(once, once) == []
    by_chart = copy.deepcopy(TEMPLATE)
    by_chart["spec"]["containers"].append({"name": "leader-sidecar", "image": "x"})
    assert injected(by_chart, election(), DEFAULTS) == by_chart


LATE: Document = {"name": "late", "image": "late:1"}


@pytest.mark.parametrize("where", ["containers", "initContainers"])
def test_a_container_that_comes_after_the_sidecar_gets_what_the_others_have(where: str) -> None:
    once = injected(TEMPLATE, election(sidecar=RICH), DEFAULTS)
    added = copy.deepcopy(once)
    added["spec"][where].append(dict(LATE))
    twice = injected(added, election(sidecar=RICH), DEFAULTS)
    (late,) = (c for c in twice["spec"][where] if c["name"] == "late")
    mount = {"name": "leader-sidecar", "mountPath": "/run/leader-sidecar", "readOnly": True}
    assert late == {**LATE, "volumeMounts": [mount]}
    twice["spec"][where].remove(late)
    assert twice == once
    twice["spec"][where].append(late)
    assert injected(twice, election(), DEFAULTS) == twice


def without_annotation(pod: Document) -> None:
    del pod["metadata"]["annotations"]["leader-sidecar.io/labelled-by"]


def with_labels_of_its_own(pod: Document) -> None:
    container(pod)["args"].remove("--label=false")


def with_another_status_dir(pod: Document) -> None:
    container(pod)["volumeMounts"][0]["mountPath"] = "/status"


def with_a_volume_of_its_own(pod: Document) -> None:
    pod["spec"]["volumes"][-1] = {"name": "leader-sidecar", "hostPath": {"path": "/a"}}


def without_the_volume(pod: Document) -> None:
    pod["spec"]["volumes"].pop()


@pytest.mark.parametrize(
    "change",
    [
        without_annotation,
        with_labels_of_its_own,
        with_another_status_dir,
        with_a_volume_of_its_own,
        without_the_volume,
    ],
)
def test_a_sidecar_of_the_pods_owner_is_none_that_was_injected(
    change: Callable[[Document], None],
) -> None:
    pod = injected(TEMPLATE, election(), DEFAULTS)
    pod["spec"]["containers"].append(dict(LATE))
    change(pod)
    assert injected(pod, election(), DEFAULTS) == pod


fields = st.fixed_dictionaries(
    {"containers": st.lists(st.sampled_from(TEMPLATE["spec"]["containers"]), max_size=2)},
    optional={
        "initContainers": st.just(TEMPLATE["spec"]["initContainers"]),
        "volumes": st.just(TEMPLATE["spec"]["volumes"]),
        "terminationGracePeriodSeconds": st.integers(0, 100),
    },
)


@given(spec=fields, annotations=st.none() | st.dictionaries(st.text(), st.text(), max_size=2))
def test_the_patch_makes_what_injection_makes(spec: Document, annotations: Any) -> None:
    pod: Document = {"metadata": {} if annotations is None else {"annotations": annotations}}
    pod["spec"] = spec
    before = copy.deepcopy(pod)
    after = injected(pod, election(), DEFAULTS)
    assert pod == before
    assert applied(pod, patch(pod, after)) == after


@pytest.mark.parametrize(
    ("pod", "namespace", "wanted"),
    [
        ("true", None, True),
        (None, "true", True),
        ("false", "true", False),
        (None, None, False),
        ("true", "false", True),
    ],
)
def test_the_pods_own_word_counts_before_its_namespaces(
    pod: str | None, namespace: str | None, wanted: bool
) -> None:
    def said(word: str | None) -> dict[str, str]:
        return {} if word is None else {"leader-sidecar.io/inject": word}

    assert wants_sidecar({"labels": said(pod)}, said(namespace)) is wanted


# `inject -f`


def test_manifests_come_out_with_the_sidecar_and_everything_else_as_it_was() -> None:
    other = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "1"}}
    text = yaml.safe_dump_all([document(), other, deployment()])
    found = list(yaml.safe_load_all(inject([text], election="", defaults=DEFAULTS)))
    assert found[:2] == [document(), other]
    assert found[2]["spec"]["template"] == injected(TEMPLATE, election(), DEFAULTS)
    again = inject([yaml.safe_dump_all(found)], election="", defaults=DEFAULTS)
    assert list(yaml.safe_load_all(again)) == found


def test_the_patch_that_is_printed_is_the_webhooks() -> None:
    texts = [yaml.safe_dump(document()), yaml.safe_dump(deployment())]
    name, line = inject(texts, election="", defaults=DEFAULTS, as_patch=True).splitlines()
    assert name == "# Deployment web"
    after = applied(deployment(), json.loads(line))
    assert after["spec"]["template"] == injected(TEMPLATE, election(), DEFAULTS)


def test_an_election_may_be_named_beside_the_manifests() -> None:
    unnamed = copy.deepcopy(TEMPLATE)
    del unnamed["metadata"]["annotations"]
    texts = [yaml.safe_dump_all([document(), deployment(unnamed)])]
    found = list(yaml.safe_load_all(inject(texts, election="master", defaults=DEFAULTS)))
    assert container(found[1]["spec"]["template"])
    with pytest.raises(ConfigError, match="Deployment web: the annotation"):
        inject(texts, election="", defaults=DEFAULTS)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([yaml.safe_dump(deployment())], "Deployment web: Election master is not among"),
        (["a: [1"], "no YAML"),
        ([yaml.safe_dump(document(election="/a//b"))], "spec.election"),
        (
            [yaml.safe_dump(deployment()), yaml.safe_dump(document(sidecar={"ttl": "0s"}))],
            "Deployment web: Election master: spec.sidecar.ttl: must be more than 0",
        ),
    ],
)
def test_what_cannot_be_injected_is_told(texts: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        inject(texts, election="", defaults=DEFAULTS)
