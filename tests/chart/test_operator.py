"""The operator's part of the chart, and the chart with the kind Election."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sidecar.operator import metrics, names
from sidecar.operator.spec import read_election
from sidecar.operator.status import Seen, status_of
from tests.chart.choices import CHOICES
from tests.chart.schemas import problems
from tests.operator.things import NOW, election, leading, queue, term
from tests.support.binaries import HELMS
from tests.support.helm import CHART, KUBERNETES, Object, one, refusal, render, run_helm

CRDS = CHART.parent / "leader-sidecar-crds"
TOOLS = CHART.parents[1] / "tools"
ON = "operator.enabled=true"
CLUSTER = (ON, "operator.scope=cluster")


def kinds(version: str = "helm4") -> list[Object]:
    """What the chart with the kind Election renders."""
    # Helm 3, built without the flags of its releases, takes an unknown cluster for an old one.
    arguments = ("template", "x", str(CRDS), "--kube-version", KUBERNETES)
    done: subprocess.CompletedProcess[str] = run_helm(*arguments, version=version)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@pytest.mark.parametrize("version", HELMS)
def test_the_kind_is_one_that_kubernetes_takes(version: str) -> None:
    for thing in kinds(version):
        for kubernetes in ("1.29", "1.37"):
            assert problems(thing, kubernetes) == [], thing["metadata"]["name"]
    assert run_helm("lint", "--strict", str(CRDS), version=version).returncode == 0


def test_the_kind_is_what_the_operator_asks_for_and_outlives_its_release() -> None:
    kind = one(kinds(), "CustomResourceDefinition")
    spec = kind["spec"]
    assert kind["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert (spec["group"], spec["names"]["plural"]) == (names.GROUP, names.PLURAL)
    assert (spec["names"]["kind"], spec["names"]["shortNames"]) == (names.KIND, ["elect"])
    (version,) = spec["versions"]
    assert version["name"] == names.VERSION
    assert version["subresources"] == {"status": {}}
    shown = [c["name"] for c in version["additionalPrinterColumns"] if not c.get("priority")]
    assert shown == ["LEADER", "TOKEN", "CANDIDATES", "SINCE", "HEALTH"]


def test_every_field_of_a_status_is_known_to_the_kind() -> None:
    record = term(10, "m-0", until=NOW, reason="handover", before="elected")
    seen = queue("m-0", history=(record,))
    move = {"reason": "x", "token": 1, "to": "m-0", "result": "Done", "message": "", "at": "x"}
    known = Seen(
        election(), seen, [leading("m-0", 10)], move=move, paused_by_spec=True, service="a"
    )
    found = status_of(known, NOW)
    schema = one(kinds(), "CustomResourceDefinition")["spec"]["versions"][0]["schema"]
    assert not unknown(found, schema["openAPIV3Schema"]["properties"]["status"])


def test_the_reference_of_the_kind_is_fresh_and_every_field_is_described() -> None:
    ask = "import kind_readme as k; print(k.page(k.DEFINITION.read_text()), end='')"
    made = subprocess.run(
        [sys.executable, "-c", ask], cwd=TOOLS, capture_output=True, text=True, check=True
    ).stdout
    assert (CRDS / "README.md").read_text() == made, "run python tools/kind_readme.py"
    schema = one(kinds(), "CustomResourceDefinition")["spec"]["versions"][0]["schema"]
    paths = list(described(schema["openAPIV3Schema"]))
    assert len(paths) > 80
    for path in paths:
        assert f"`{path}`" in made


def described(schema: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all fields, each of which has a description."""
    for name, below in schema.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        assert below.get("description"), here
        yield here
        is_list = below["type"] == "array"
        yield from described(below["items"] if is_list else below, here + "[]" * is_list)


def unknown(value: Any, schema: Any, path: str = "status") -> list[str]:
    """The paths of what would be pruned."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        wrong = [f"{path}.{name}" for name in value if name not in known]
        for name in value.keys() & known.keys():
            wrong += unknown(value[name], known[name], f"{path}.{name}")
        return wrong
    if isinstance(value, list):
        return [p for each in value for p in unknown(each, schema["items"], path)]
    return []


def test_without_the_kind_the_chart_says_which_command_to_run() -> None:
    said = refusal(ON, knows_elections=False)
    assert "helm install leader-sidecar-crds charts/leader-sidecar-crds" in said
    assert "operator.namespaces: is for" in refusal(*CLUSTER, "operator.namespaces[0]=a")


def test_without_the_operator_nothing_of_it_is_there() -> None:
    text = json.dumps([o for o in render() if o["kind"] != "Secret"])
    assert "operator" not in text.replace('"operator": "In"', "")  # as in any selector


def rules(*choices: str, kind: str = "Role", name: str = "demo-operator") -> list[Object]:
    found = one(render(*choices), kind, name)["rules"]
    assert isinstance(found, list)
    return found


def test_in_namespaced_mode_nothing_of_the_whole_cluster_may_be_read() -> None:
    everywhere = rules(ON, kind="ClusterRole", name="leader-sidecar-shop-demo-operator")
    (only,) = everywhere
    assert only["apiGroups"] == ["admissionregistration.k8s.io"]
    assert only["resourceNames"] == ["leader-sidecar-shop-demo-operator"]
    assert "ClusterRole" not in {o["kind"] for o in render(ON, "operator.certificates=certManager")}


def test_names_in_the_cluster_carry_all_of_the_namespace_and_the_release() -> None:
    release = "a" * 40
    objects = render(*CLUSTER, f"fullnameOverride={release}")
    names_ = {
        o["metadata"]["name"]
        for o in objects
        if o["kind"].startswith(("ClusterRole", "Mutating", "Validating"))
    }
    assert names_ == {f"leader-sidecar-shop-{release}-operator"}


def test_each_namespace_gets_the_same_rights_and_no_other_does() -> None:
    objects = render(ON, "operator.namespaces[0]=games")
    roles = {
        (o["metadata"]["namespace"], o["metadata"]["name"]): o["rules"]
        for o in objects
        if o["kind"] == "Role" and "elections" in json.dumps(o)
    }
    assert {namespace for namespace, _ in roles} == {"shop", "games"}
    one_way, other = roles.values()
    assert one_way == other


def test_only_named_secrets_may_be_read() -> None:
    for choices in ((ON,), CLUSTER, (ON, "users.mode=password", "operator.etcdSecrets[0]=x")):
        for thing in render(*choices):
            operators = thing["metadata"]["name"].endswith(("operator", "operator-certificate"))
            for rule in thing.get("rules") or [] if operators else []:
                if "secrets" in rule["resources"]:
                    assert rule["resourceNames"]
                    assert set(rule["verbs"]) <= {"get", "patch"}
                assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
                assert "delete" not in rule["verbs"]


def test_services_are_written_only_where_that_is_wanted() -> None:
    without = json.dumps(rules(ON, "operator.services=false"))
    assert "services" not in without
    assert "endpointslices" in json.dumps(rules(ON))


def hooks(*choices: str, kind: str = "MutatingWebhookConfiguration") -> list[Object]:
    found = one(render(*choices), kind)["webhooks"]
    assert isinstance(found, list)
    return found


def test_neither_a_pods_start_nor_a_drain_depends_on_the_webhooks() -> None:
    for kind, effects in (
        ("MutatingWebhookConfiguration", "None"),
        ("ValidatingWebhookConfiguration", "NoneOnDryRun"),
    ):
        for hook in hooks(*CLUSTER, kind=kind):
            assert hook["failurePolicy"] == "Ignore"
            assert hook["timeoutSeconds"] == 5
            assert hook["sideEffects"] == effects
            # The operator fills it in, and an upgrade must not empty it.
            assert "caBundle" not in hook["clientConfig"]


def test_pods_of_kube_system_and_of_the_operators_namespace_are_not_injected() -> None:
    by_pod, by_namespace = hooks(*CLUSTER)
    for hook in (by_pod, by_namespace):
        (where,) = hook["namespaceSelector"]["matchExpressions"]
        assert where["operator"] == "NotIn"
        assert set(where["values"]) == {"kube-system", "shop"}
    assert by_pod["objectSelector"]["matchLabels"] == {names.INJECT: "true"}
    assert by_namespace["namespaceSelector"]["matchLabels"] == {names.INJECT: "true"}
    # A pod is asked about once: its own word comes before its namespace's.
    (said,) = by_namespace["objectSelector"]["matchExpressions"]
    assert said == {"key": names.INJECT, "operator": "DoesNotExist"}


def test_an_eviction_is_asked_about_where_the_operator_looks_after_elections() -> None:
    kind = "ValidatingWebhookConfiguration"
    (everywhere,) = hooks(*CLUSTER, kind=kind)
    (here,) = hooks(ON, "operator.namespaces[0]=games", kind=kind)
    (where,) = here["namespaceSelector"]["matchExpressions"]
    assert set(where["values"]) == {"shop", "games"}
    (rule,) = everywhere["rules"]
    assert (rule["resources"], rule["operations"]) == (["pods/eviction"], ["CREATE"])


def test_the_releases_election_is_the_one_that_its_sidecars_stand_in() -> None:
    choices = (ON, "tls.mode=certManager", "users.mode=password")
    objects = render(*choices, values="{operator: {election: {spec: {maxTermDuration: 24h}}}}")
    found = read_election(one(objects, "Election"))
    pod = one(objects, "Deployment", "demo")["spec"]["template"]
    (sidecar,) = pod["spec"]["initContainers"]
    assert f"--election={found.election}" in sidecar["args"]
    assert f"--endpoints={','.join(found.store.endpoints)}" in sidecar["args"]
    assert found.selector.matches(pod["metadata"]["labels"])
    assert found.longest_term == 86400.0
    assert found.store.user == "operator"
    made = {o["metadata"]["name"] for o in objects if o["kind"] == "Secret"}
    made |= {o["spec"]["secretName"] for o in objects if o["kind"] == "Certificate"}
    assert {found.store.tls_secret, found.store.password_secret} <= made


PORTS = "ports: [{name: http, port: 80}]"


def following(name: str = "") -> str:
    """Values with a Service that follows the leader of the release's own Election."""
    return f"{{operator: {{election: {{spec: {{service: {{{name}{PORTS}}}}}}}}}}}"


@pytest.mark.parametrize("version", HELMS)
def test_a_service_of_the_charts_own_cannot_follow_the_leader(version: str) -> None:
    said = refusal(ON, values=following(), version=version)
    assert "operator.election.spec.service.name: is empty, and stands for demo-leader" in said
    assert "give another one, such as demo-now" in said
    found = one(render(ON, values=following("name: demo-now, "), version=version), "Election")
    assert read_election(found).service is not None
    # There the chart makes none of this name.
    assert render(ON, "kube.labels=false", values=following(), version=version)


@pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))
def test_none_of_the_charts_services_is_the_one_that_follows(choices: tuple[str, ...]) -> None:
    choices = (ON, "tls.existingSecret.operator=own-operator", *choices)
    made = [o["metadata"]["name"] for o in render(*choices) if o["kind"] == "Service"]
    assert len(made) >= 2
    for name in made:
        said = refusal(*choices, values=following(f"name: {name}, "))
        assert f"operator.election.spec.service.name: is {name}, which is a Service of" in said


def test_alerts_ask_for_metrics_that_the_operator_serves() -> None:
    found = one(render(ON, "monitoring.prometheusRule.enabled=true"), "PrometheusRule")
    rules_ = found["spec"]["groups"][0]["rules"]
    asked = " ".join(rule["expr"] for rule in rules_ if "Operator" in rule["alert"])
    served = {description.name for description in metrics.DESCRIPTIONS}
    used = set(re.findall(r"leader_sidecar_operator_\w+", asked))
    assert len(used) == 4
    assert used <= served


def test_the_alert_on_what_the_api_server_counts_is_on_the_webhooks_of_the_chart() -> None:
    objects = render(*CLUSTER, "monitoring.prometheusRule.enabled=true")
    (group,) = one(objects, "PrometheusRule")["spec"]["groups"]
    (expr,) = (r["expr"] for r in group["rules"] if r["alert"].endswith("WebhookUnanswered"))
    (asked,) = set(re.findall(r'name=~"([^"]+)"', expr))
    configurations = [o for o in objects if o["kind"].endswith("WebhookConfiguration")]
    names_ = [hook["name"] for found in configurations for hook in found["webhooks"]]
    assert len(names_) == 3
    assert all(re.fullmatch(asked, name) for name in names_)
