"""The operator with the rights, webhooks and arguments that the chart gives it, but no pods."""

import subprocess
from collections.abc import Sequence
from typing import Any

import yaml

from sidecar.addresses import own_address
from tests.e2e.operator.api_server import Object
from tests.e2e.operator.shop import Replica, Shop
from tests.support.helm import CHART, ELECTIONS, run_helm
from tests.support.procs import wait_until

RELEASE = "demo"
_TAKEN = {
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
    "Secret",
    "Issuer",
    "Certificate",
}
_SET_BY_THE_TEST = ("--election=", "--endpoints=", "--http=", "--webhook=", "--ttl=")


def rendered(namespace: str, choices: Sequence[str], component: str = "operator") -> list[Object]:
    """Return the objects of the operator, or another component, for a release in a namespace."""
    sets = [part for choice in ("operator.enabled=true", *choices) for part in ("--set", choice)]
    where = (RELEASE, str(CHART), "-n", namespace, "--kube-version", "1.34")
    done: subprocess.CompletedProcess[str] = run_helm(
        "template", *where, "--api-versions", ELECTIONS, *sets
    )
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    label = "app.kubernetes.io/component"
    return [o for o in objects if o["metadata"]["labels"].get(label) == component]


def deploy(shop: Shop, *choices: str) -> Replica:
    """Start one replica as the chart would, as a user who has exactly its rights."""
    objects = rendered(shop.namespace, choices)
    for thing in objects:
        for subject in thing.get("subjects", []):
            subject.clear()
            subject |= {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "operator"}
    shop.server.must_apply(*(o for o in objects if o["kind"] in _TAKEN))
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    arguments = [a for a in container["args"][1:] if not a.startswith(_SET_BY_THE_TEST)]
    shop.user = "operator"
    replica = shop.operator("op-0", *arguments)
    serve(shop, replica)
    return replica


def serve(shop: Shop, replica: Replica) -> None:
    """Make the Service of the webhooks, and lead it to the process."""
    name = f"{RELEASE}-operator"
    port = {"name": "webhook", "port": 443, "targetPort": replica.webhook_port}
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": shop.namespace},
        "spec": {"ports": [port]},
    }
    endpoints: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": shop.namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "webhook", "port": replica.webhook_port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}],
    }
    shop.server.must_apply(service, endpoints)
    wait_until(lambda: replica.get("/readyz")[0] == 200, f"{replica.child.tail()}: ready", 60)
