"""Everything that the chart renders is what Kubernetes takes, and safe by default."""

import json
import re
from typing import Any

import pytest
import yaml

from sidecar.cli.main import REFUSED, USAGE
from sidecar.cluster.plan import Plan
from tests.chart.choices import CHOICES
from tests.chart.schemas import problems
from tests.support.binaries import HELMS
from tests.support.helm import (
    CHART,
    ELECTIONS,
    KUBERNETES,
    Object,
    containers,
    one,
    pod_of,
    render,
    run_helm,
    template,
)

VERSIONS = ("1.29", "1.33", "1.37")  # the oldest that the chart takes, and newer ones
POLICIES = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}  # v1 since 1.30
RANDOM = re.compile(r"^( *(?:key|password|tls\.crt|tls\.key|ca\.crt)): \S{20,}$", re.MULTILINE)


@pytest.fixture(params=list(CHOICES.values()), ids=list(CHOICES))
def objects(request: pytest.FixtureRequest) -> list[Object]:
    """All objects of each choice."""
    return render(*request.param)


def pods(objects: list[Object]) -> list[tuple[str, Object]]:
    """The pods that the objects make, by the objects' names."""
    named = ((f"{o['kind']}/{o['metadata']['name']}", pod_of(o)) for o in objects)
    return [(name, pod) for name, pod in named if pod is not None]


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))
def test_helm_lints_the_chart(version: str, choices: tuple[str, ...]) -> None:
    sets = [part for choice in choices for part in ("--set", choice)]
    done = run_helm("lint", "--strict", str(CHART), *sets, version=version)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))
def test_helm_3_and_4_render_the_same(choices: tuple[str, ...]) -> None:
    texts = [RANDOM.sub(r"\1: made", template(*choices, version=helm)) for helm in HELMS]
    old, new = ([o for o in yaml.safe_load_all(text) if o] for text in texts)
    assert sorted(map(json.dumps, old)) == sorted(map(json.dumps, new))


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(objects: list[Object], version: str) -> None:
    wrong = {
        f"{thing['kind']}/{thing['metadata']['name']}": found
        for thing in objects
        if not (version == "1.29" and thing["kind"] in POLICIES)
        if (found := problems(thing, version))
    }
    assert not wrong


def test_a_field_that_kubernetes_does_not_know_is_found() -> None:
    thing = one(render(), "Deployment")
    broken: Object = json.loads(json.dumps(thing))
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Never"
    assert not problems(thing, "1.34")
    assert problems(broken, "1.34")


@pytest.mark.parametrize("kind", ["Certificate", "PodMonitor", "PrometheusRule", "Election"])
def test_a_field_that_the_makers_of_a_kind_do_not_know_is_found(kind: str) -> None:
    choices = ("tls.mode=certManager", *CHOICES["an operator"])
    thing = next(o for o in render(*choices) if o["kind"] == kind)
    broken: Object = {**thing, "spec": {**thing["spec"], "selectors": {}}}
    assert not problems(thing, "1.34")
    assert problems(broken, "1.34")


def test_no_two_objects_have_one_name(objects: list[Object]) -> None:
    names = [(o["apiVersion"], o["kind"], o["metadata"]["name"]) for o in objects]
    assert len(names) == len(set(names))


def test_every_pod_keeps_to_the_restricted_profile(objects: list[Object]) -> None:
    for name, pod in pods(objects):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["automountServiceAccountToken"] is False, name
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["runAsNonRoot"] is True, name
            assert security["runAsUser"] > 0, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name


def test_every_container_says_what_it_needs(objects: list[Object]) -> None:
    for name, pod in pods(objects):
        for container in containers(pod):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def test_only_who_talks_to_the_api_server_has_a_token(objects: list[Object]) -> None:
    for name, pod in pods(objects):
        holders = {
            container["name"]
            for container in containers(pod)
            for mount in container.get("volumeMounts", [])
            if mount["name"] == "api-token"
        }
        assert holders <= {"leader-sidecar", "init", "scale-down", "rollout", "operator"}, name
        is_there = any(volume["name"] == "api-token" for volume in pod.get("volumes", []))
        assert is_there == bool(holders), name


def test_every_volume_that_is_mounted_is_there(objects: list[Object]) -> None:
    for thing in objects:
        pod = pod_of(thing)
        if pod is None:
            continue
        claims = thing["spec"].get("volumeClaimTemplates", [])
        there = {v["name"] for v in pod.get("volumes", [])} | {
            c["metadata"]["name"] for c in claims
        }
        mounted = {m["name"] for c in containers(pod) for m in c.get("volumeMounts", [])}
        assert mounted == there, thing["metadata"]["name"]


def test_every_service_finds_its_pods_and_ports(objects: list[Object]) -> None:
    made = [o for o in objects if o["kind"] in {"Deployment", "StatefulSet"}]
    for service in (o for o in objects if o["kind"] == "Service"):
        selector = dict(service["spec"]["selector"])
        selector.pop("leader-sidecar.io/role", None)  # which the sidecars write
        found = [m for m in made if selector.items() <= labels(m).items()]
        assert len(found) == 1, service["metadata"]["name"]
        pod = pod_of(found[0])
        assert pod is not None
        ports = {port["name"] for c in containers(pod) for port in c.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def labels(workload: Object) -> dict[str, str]:
    """The labels of a workload's pods."""
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def test_the_role_label_is_in_no_template_and_no_selector_of_a_workload(
    objects: list[Object],
) -> None:
    for thing in objects:
        if thing["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            assert "leader-sidecar.io/role" not in json.dumps(thing)


def test_every_secret_that_is_used_is_made_or_named_by_the_user(objects: list[Object]) -> None:
    made = {o["metadata"]["name"] for o in objects if o["kind"] == "Secret"}
    made |= {o["spec"]["secretName"] for o in objects if o["kind"] == "Certificate"}
    for name, pod in pods(objects):
        used = set(re.findall(r'"secret(?:Name)?": (?:{"name": )?"([^"]+)"', json.dumps(pod)))
        used |= {
            source["secret"]["name"]
            for volume in pod.get("volumes", [])
            for source in volume.get("projected", {}).get("sources", [])
            if "secret" in source
        }
        assert {secret for secret in used if not secret.startswith(("own", "etcd-"))} <= made, name


@pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))
def test_the_plan_is_one_that_our_commands_read(
    choices: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    maps = [o for o in render(*choices) if o["kind"] == "ConfigMap" and "plan.json" in o["data"]]
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    for each in maps:
        path.write_text(each["data"]["plan.json"])
        plan = Plan.read(path)
        assert plan.names[0] == "demo-etcd-0"
        scheme = "https" if any(c.startswith("tls.mode") for c in choices) else "http"
        assert plan.peer_url_of("demo-etcd-0") == f"{scheme}://demo-etcd-0.demo-etcd.shop.svc:2380"
    assert bool(maps) == ("etcd.enabled=false" not in choices)


def test_the_number_of_members_changes_no_pod_that_is_there() -> None:
    def template_of(replicas: int) -> Any:
        return one(render(f"etcd.replicas={replicas}"), "StatefulSet")["spec"]["template"]

    assert template_of(3) == template_of(5)


def test_another_setting_of_etcd_changes_its_pods() -> None:
    one_way, other = (
        one(render(f"etcd.electionTimeout={n}"), "StatefulSet")["spec"]["template"]
        for n in (1000, 2000)
    )
    assert one_way != other


def test_what_the_users_job_does_is_in_its_name() -> None:
    def name(*choices: str) -> str:
        jobs = [o for o in render("users.mode=password", *choices) if o["kind"] == "Job"]
        (found,) = (j["metadata"]["name"] for j in jobs if "-users-" in j["metadata"]["name"])
        return str(found)

    assert name() == name()
    assert name() != name("users.masterReadWrite[0]=/other/")
    assert name() != name("image.tag=other")


def test_the_grace_period_is_the_sum_of_what_has_to_happen() -> None:
    def grace(values: str = "") -> int:
        spec = pod_of(one(render(values=values), "Deployment"))
        assert spec is not None
        return int(spec["terminationGracePeriodSeconds"])

    assert grace() == 0 + 5 + 20 + 5
    longer = "{sidecar: {drain: 1.5}, forwarder: {linger: 7}, master: {stopSeconds: 3}}"
    assert grace(longer) == 2 + 7 + 3 + 5
    assert grace("{forwarder: {enabled: false}}") == 0 + 0 + 20 + 5
    assert grace("{master: {terminationGracePeriodSeconds: 90}}") == 90


CLUSTER_WIDE = (
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
)


def test_the_longest_release_has_names_that_kubernetes_takes() -> None:
    choices = (
        "tls.mode=certManager",
        "users.mode=password",
        "operator.enabled=true",
        "rbac.admissionPolicy=true",
    )
    longest = "r" * 53
    sets = [part for choice in choices for part in ("--set", choice)]
    known = ("--kube-version", KUBERNETES, "--api-versions", ELECTIONS)
    done = run_helm("template", longest, str(CHART), "-n", "n" * 63, *known, *sets)
    assert done.returncode == 0, done.stderr
    most = {"CronJob": 52}  # a Job of it gets eleven more
    # Of all namespaces and releases, so they are not cut.
    most |= dict.fromkeys(CLUSTER_WIDE, 253)
    for thing in yaml.safe_load_all(done.stdout):
        name = thing["metadata"]["name"]
        assert re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(name) <= most.get(thing["kind"], 63), (thing["kind"], name)
        assert len(thing["spec"].get("commonName", "") if "spec" in thing else "") <= 64


def test_releases_with_long_names_have_nothing_of_the_whole_cluster_in_common() -> None:
    known = (
        "--kube-version",
        KUBERNETES,
        "--api-versions",
        ELECTIONS,
        "--set",
        "operator.enabled=true",
    )
    where = (
        "-n",
        "team-of-the-payments-in-production",
        *known,
        "--set",
        "rbac.admissionPolicy=true",
    )
    names = []
    for release in ("checkout-of-the-shop-a", "checkout-of-the-shop-b"):
        done = run_helm("template", release, str(CHART), *where)
        assert done.returncode == 0, done.stderr
        things = [thing["metadata"] for thing in yaml.safe_load_all(done.stdout)]
        names.append({thing["name"] for thing in things if "namespace" not in thing})
    one_way, other = names
    assert len(one_way) == len(other) == 2
    assert not one_way & other


def test_what_a_command_says_is_given_as_it_is() -> None:
    said = {
        "election": "/shop: a #1",
        "health": {"http": "", "exec": "sh -c 'test -e /tmp/ok: #1' \"x\""},
    }
    pod = pod_of(one(render(values=json.dumps({"sidecar": said})), "Deployment"))
    assert pod is not None
    arguments = pod["initContainers"][0]["args"]
    assert "--election=/shop: a #1" in arguments
    assert "--health-exec=sh -c 'test -e /tmp/ok: #1' \"x\"" in arguments


def test_a_forwarded_port_has_a_name_that_kubernetes_takes() -> None:
    http = {"name": "http", "containerPort": 8081, "servicePort": 1}
    port = {"name": "abcdefghij-k", "containerPort": 1, "forwardPort": 2, "servicePort": 3}
    objects = render(values=json.dumps({"master": {"ports": [http, port]}}))
    (_, named, _) = one(objects, "Service", "demo")["spec"]["ports"]
    assert named["targetPort"] == "fwd-abcdefghij"


def test_a_stateful_set_is_rolled_out_whoever_makes_the_permissions() -> None:
    own, others = (
        one(render("master.kind=StatefulSet", *choices), "Job", "demo-rollout")
        for choices in ((), ("rbac.create=false", "rbac.rolloutServiceAccountName=roller"))
    )
    assert pod_of(own) == {**(pod_of(others) or {}), "serviceAccountName": "demo-rollout"}
    assert (pod_of(others) or {})["serviceAccountName"] == "roller"


def test_a_hook_that_has_refused_is_not_begun_anew() -> None:
    hooks = [o for o in render("master.kind=StatefulSet") if o["kind"] == "Job"]
    assert len(hooks) == 2
    for hook in hooks:
        (rule,) = hook["spec"]["podFailurePolicy"]["rules"]
        (container,) = hook["spec"]["template"]["spec"]["containers"]
        assert rule["action"] == "FailJob"
        assert rule["onExitCodes"] == {
            "containerName": container["name"],
            "operator": "In",
            "values": [REFUSED, USAGE],
        }


def test_where_only_the_leader_is_ready_no_budget_keeps_its_node() -> None:
    choices = CHOICES["a StatefulSet, rolled by Kubernetes"]
    budgets = [o["metadata"]["name"] for o in render(*choices) if "Budget" in o["kind"]]
    assert budgets == ["demo-etcd"]


def test_policies_let_masters_and_workers_reach_the_masters() -> None:
    objects = render(*CHOICES["policies and workers"])
    serving, _ = one(objects, "NetworkPolicy", "demo")["spec"]["ingress"]
    let_in = [
        rule["podSelector"]["matchLabels"] for rule in serving["from"] if "podSelector" in rule
    ]
    for name in ("demo", "demo-worker"):
        pod = labels(one(objects, "Deployment", name))
        assert any(selector.items() <= pod.items() for selector in let_in), name


def test_a_worker_has_no_credentials_of_an_etcd_that_it_does_not_use() -> None:
    choices = ("worker.enabled=true", "tls.mode=helm", "master.etcdAccess.enabled=false")
    assert "etcd-master" not in json.dumps(one(render(*choices), "Deployment", "demo-worker"))


def test_the_program_is_told_to_end_a_moment_after_the_sidecar() -> None:
    def lifecycle(*choices: str) -> Any:
        spec = pod_of(one(render(*choices), "Deployment"))
        assert spec is not None
        (program,) = spec["containers"]
        return program.get("lifecycle")

    assert lifecycle() == {"preStop": {"sleep": {"seconds": 3}}}
    assert lifecycle("master.stopDelaySeconds=0") is None
    # Where Kubernetes does not know it, a hook without an action would be refused.
    old = run_helm("template", "demo", str(CHART), "--kube-version", "1.29")
    assert old.returncode == 0, old.stderr
    assert "sleep:" not in old.stdout


def test_who_scales_etcd_down_may_change_its_one_stateful_set_and_nothing_else() -> None:
    (role,) = (
        thing
        for thing in render()
        if thing["kind"] == "Role" and thing["metadata"]["name"] == "demo-etcd-scale-down"
    )
    (rule,) = role["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["statefulsets"], ["demo-etcd"])
    assert rule["verbs"] == ["get", "patch"]
