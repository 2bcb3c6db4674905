"""The chart on a real API server: what that makes of every object, and what Helm finds again there.

Nobody runs the pods, so hooks are left out.
"""

import base64
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml
from cryptography import x509

from tests.chart.choices import CHOICES
from tests.chart.foreign import SPECS
from tests.e2e.operator.api_server import ApiServer
from tests.support.helm import CHART, ELECTIONS, run_helm

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SECURED = ("tls.mode=helm", "users.mode=password", "tls.keep=true")
CERTIFICATES = {f"demo-tls-{name}" for name in ("ca", "server", "root", "sidecar", "master")}
Secrets = dict[str, dict[str, bytes]]


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace, and Helm for a release in it."""

    server: ApiServer
    name: str

    def helm(self, *arguments: str, sets: tuple[str, ...] = ()) -> None:
        """Run Helm; it has to work."""
        chosen = [part for choice in sets for part in ("--set", choice)]
        where = (f"--kubeconfig={self.server.kubeconfig('admin')}", f"--namespace={self.name}")
        done = run_helm(*arguments, *where, *chosen)
        assert done.returncode == 0, done.stderr

    def upgrade(self, *sets: str) -> Secrets:
        """Install or upgrade, and return the Secrets that are there then."""
        release = ("upgrade", "demo", str(CHART), "--install", "--no-hooks")
        self.helm(*release, sets=(*SECURED, *sets))
        return self.secrets()

    def secrets(self) -> Secrets:
        """Return what is in each Secret but Helm's own."""
        found = self.server.admin.get(f"/api/v1/namespaces/{self.name}/secrets")["items"]
        return {
            secret["metadata"]["name"]: {
                key: base64.b64decode(text) for key, text in secret["data"].items()
            }
            for secret in found
            if not secret["type"].startswith("helm.sh/")
        }


@pytest.fixture
def place(server: ApiServer) -> Iterator[Place]:
    """Return a namespace of the test's own."""
    name = f"chart-{uuid.uuid4().hex[:6]}"
    profile = {f"pod-security.kubernetes.io/{way}": "restricted" for way in ("enforce", "warn")}
    metadata = {"name": name, "labels": profile}
    server.must_apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    yield Place(server, name)
    server.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("choices", CHOICES.values(), ids=list(CHOICES))
def test_kubernetes_takes_every_object(place: Place, choices: tuple[str, ...]) -> None:
    sets = [part for choice in choices for part in ("--set", choice)]
    known = ("--api-versions", ELECTIONS, "--kube-version", "1.34")
    done = run_helm("template", "demo", str(CHART), "-n", place.name, *known, *sets)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    ours = [o for o in objects if (o["apiVersion"], o["kind"]) not in SPECS]
    here = [o for o in ours if o["metadata"].get("namespace", place.name) == place.name]
    taken = place.server.kubectl(
        "apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(here)
    )
    assert taken.returncode == 0, taken.stderr
    assert "would violate PodSecurity" not in taken.stderr


def test_what_helm_made_is_kept_and_renewed_when_that_is_wanted(place: Place) -> None:
    first = place.upgrade()
    assert set(first) >= CERTIFICATES | {"demo-etcd-jwt", "demo-user-root", "demo-user-sidecar"}
    assert place.upgrade("sidecar.drain=1") == first

    with_guest = place.upgrade("users.extra[0].name=guest")
    assert {name: with_guest[name] for name in first} == first
    assert set(with_guest) - set(first) == {"demo-tls-guest", "demo-user-guest"}
    authority = x509.load_pem_x509_certificate(first["demo-tls-ca"]["tls.crt"])
    guest = x509.load_pem_x509_certificate(with_guest["demo-tls-guest"]["tls.crt"])
    guest.verify_directly_issued_by(authority)

    renewed = place.upgrade("tls.rotate=2026")
    changed = {name for name in first if renewed[name] != first[name]}
    assert changed == CERTIFICATES - {"demo-tls-ca"}
    for name in changed:
        assert renewed[name]["ca.crt"] == first[name]["ca.crt"]
        found = x509.load_pem_x509_certificate(renewed[name]["tls.crt"])
        found.verify_directly_issued_by(authority)
    assert place.upgrade("tls.rotate=2026", "sidecar.drain=2") == renewed

    place.helm("uninstall", "demo", "--no-hooks")
    assert set(place.secrets()) == CERTIFICATES | {"demo-tls-guest"}
    # What was kept is taken up again.
    again = place.upgrade("tls.rotate=2026")
    assert all(again[name] == renewed[name] for name in CERTIFICATES)
