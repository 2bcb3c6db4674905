"""What a sidecar's token may do in its namespace, and what becomes of a sidecar that may not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.support.release import SIDECAR, Release, Values
from tests.support.procs import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

VALUES: Values = {"etcd": {"replicas": 1}, "rbac": {"admissionPolicy": True}}
ROLE = "leader-sidecar.io/role"
COST = "controller.kubernetes.io/pod-deletion-cost"
_PATCH = """
import json, sys
from sidecar.cluster.api import Api, ApiError
try:
    Api.in_cluster().merge(sys.argv[1], json.loads(sys.argv[2]))
except ApiError as refused:
    print(refused)
"""


def refusal(release: Release, by: str, pod: str, patch: Any) -> str:
    """Patch a pod with the token of the sidecar in another, or the same; return why it may not."""
    path = f"/api/v1/namespaces/{release.namespace}/pods/{pod}"
    program = ("python", "-c", _PATCH, path, json.dumps(patch))
    return release.kubectl.run("exec", by, "-c", SIDECAR, "--", *program).strip()


def names_of(release: Release) -> list[str]:
    """Return the names of the Masters' pods."""
    return [pod["metadata"]["name"] for pod in release.pods()]


@contextmanager
def with_rules(release: Release, *rules: Any) -> Iterator[None]:
    """Have other rules in the Role of the sidecars for a while."""
    before = release.kubectl.get("role", release.name)["rules"]

    def write(rules: list[Any]) -> None:
        patch = json.dumps({"rules": rules})
        release.kubectl.run("patch", "role", release.name, "--type=merge", f"--patch={patch}")

    write(list(rules))
    try:
        yield
    finally:
        write(before)


def test_kubernetes_finds_no_fault_with_the_policy(release: Release) -> None:
    name = f"leader-sidecar-{release.namespace}-{release.name}"

    def looked_at() -> Any:
        policy = release.cluster.kubectl.get("validatingadmissionpolicy", name)
        is_new = policy["metadata"]["generation"] == policy["status"].get("observedGeneration")
        return policy["status"] if is_new else None

    status = wait_until(looked_at, "the types of the policy are checked", 60)
    assert not status.get("typeChecking", {}).get("expressionWarnings")


def test_a_token_may_change_the_marks_of_its_own_pod(release: Release) -> None:
    pod, *_ = release.followers(release.settled())
    for cost in ("7", None):
        patch = {"metadata": {"labels": {ROLE: "follower"}, "annotations": {COST: cost}}}
        assert refusal(release, pod, pod, patch) == ""


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"metadata": {"labels": {"app.kubernetes.io/component": "x"}}}, "the label"),
        ({"metadata": {"labels": {"app.kubernetes.io/component": None}}}, "the label"),
        ({"metadata": {"annotations": {"a": "b"}}}, "its own annotations, and no others"),
        ({"metadata": {"ownerReferences": None}}, "labels and annotations, and nothing"),
        ({"spec": {"activeDeadlineSeconds": 1}}, "labels and annotations, and nothing else"),
    ],
    ids=["another label", "a label less", "another annotation", "its owner", "the spec"],
)
def test_a_token_may_change_nothing_else_of_its_own_pod(
    release: Release, patch: Any, why: str
) -> None:
    pod, *_ = release.followers(release.settled())
    assert f"a leader-sidecar may change {why}" in refusal(release, pod, pod, patch)


def test_a_token_may_not_change_the_marks_of_another_pod(release: Release) -> None:
    pod, another = release.followers(release.settled())
    why = refusal(release, pod, another, {"metadata": {"labels": {ROLE: "leader"}}})
    assert "may change the pod that its token was made for, and no other" in why


def test_a_sidecar_says_at_its_start_which_permissions_it_lacks(release: Release) -> None:
    before = release.settled()
    old, (deleted, _) = names_of(release), release.followers(before)

    def heir() -> str:
        return next((name for name in names_of(release) if name not in old), "")

    with with_rules(release, {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}):
        release.kubectl.run("delete", "pod", deleted)
        pod = wait_until(heir, f"a pod after {deleted}", 60)
        release.kubectl.run("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=120s")
        lacking = ("patch pods", "create events")
        wanted = [f"may not {it} in namespace {release.namespace}; add it to its" for it in lacking]

        def told() -> bool:
            said = release.kubectl.run("logs", pod, "-c", SIDECAR)
            return all(phrase in said for phrase in wanted)

        wait_until(told, f"{pod} says {wanted}", 60)
        assert release.leader() == before
    assert release.settled() == before


def test_without_any_permission_the_leader_is_found_through_the_status(release: Release) -> None:
    values = {"master": {"replicas": 2}, "etcd": {"replicas": 1}, "kube": {"labels": False}}
    bare = Release(release.cluster, release.namespace, "bare", values=values)
    bare.install()
    try:
        before = bare.settled()
        for kind in ("service/bare-leader", "role/bare", "rolebinding/bare"):
            assert not bare.kubectl.exists(kind), kind
        for pod in bare.pods():
            assert ROLE not in pod["metadata"]["labels"]
            assert "serviceAccountToken" not in json.dumps(pod["spec"]["volumes"])
        bare.kubectl.run("delete", "pod", before.pod)
        after = bare.changed_from(before)
        assert after.pod != before.pod
        assert bare.settled() == after
    finally:
        bare.uninstall()
