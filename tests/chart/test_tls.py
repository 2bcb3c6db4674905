"""etcd takes the certificates that Helm makes, and the configuration that the chart writes."""

import base64
import json
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.x509.oid import NameOID

from sidecar.cluster.membership import Patience
from sidecar.election.ports import SystemClock
from sidecar.errors import Refused
from sidecar.etcd.admin import Admin, administering
from sidecar.etcd.credentials import Credentials
from sidecar.etcd.endpoints import parse_endpoints
from tests.support.binaries import require_etcd
from tests.support.helm import CHART, ELECTIONS, KUBERNETES, Object, one, render, run_helm
from tests.support.procs import LOOPBACK, Child, ReservedPort

CLIENTS = ("root", "sidecar", "master")


def secret(objects: list[Object], name: str) -> dict[str, bytes]:
    data = one(objects, "Secret", name)["data"]
    return {key: base64.b64decode(text) for key, text in data.items()}


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return render("tls.mode=helm", "users.mode=password")


def certificate(objects: list[Object], name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(secret(objects, f"demo-tls-{name}")["tls.crt"])


def test_the_members_certificate_is_for_their_names_and_for_no_pods_address(
    objects: list[Object],
) -> None:
    found = certificate(objects, "server")
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {
        "localhost",
        "demo-etcd.shop.svc",
        "*.demo-etcd.shop.svc",
        "demo-etcd.shop.svc.cluster.local",
        "*.demo-etcd.shop.svc.cluster.local",
    }
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    assert addresses == {"127.0.0.1", "::1"}


def test_every_client_is_called_by_its_user_and_signed_by_the_one_authority(
    objects: list[Object],
) -> None:
    authority = certificate(objects, "ca")
    for name in ("server", *CLIENTS):
        found = certificate(objects, name)
        found.verify_directly_issued_by(authority)
        (common,) = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        assert common.value == ("etcd" if name == "server" else name)
        assert (
            secret(objects, f"demo-tls-{name}")["ca.crt"]
            == secret(objects, "demo-tls-ca")["tls.crt"]
        )


def test_no_pod_has_the_key_of_the_authority(objects: list[Object]) -> None:
    others = [o for o in objects if o["kind"] != "Secret"]
    assert "demo-tls-ca" not in json.dumps(others)


def test_names_in_certificates_fit_where_release_and_namespace_are_long() -> None:
    where = ("r" * 40, str(CHART), "-n", "n" * 63, "--kube-version", KUBERNETES)
    kinds = ("tls.mode=certManager", "operator.certificates=certManager", "operator.enabled=true")
    sets = [part for choice in kinds for part in ("--set", choice)]
    done = run_helm("template", *where, "--api-versions", ELECTIONS, *sets)
    assert done.returncode == 0, done.stderr
    made = [o["spec"] for o in yaml.safe_load_all(done.stdout) if o["kind"] == "Certificate"]
    assert len([spec for spec in made if spec.get("isCA")]) == 2
    # More is refused by cert-manager's webhook, and by X.509.
    assert max(len(spec.get("commonName", "")) for spec in made) == 64


@pytest.mark.integration
async def test_etcd_runs_with_what_the_chart_writes(objects: list[Object], tmp_path: Path) -> None:
    etcd = require_etcd().etcd
    server, root = (secret(objects, f"demo-tls-{name}") for name in ("server", "root"))
    for name, data in {**server, "key": secret(objects, "demo-etcd-jwt")["key"]}.items():
        (tmp_path / name).write_bytes(data)
    plan = json.loads(one(objects, "ConfigMap", "demo-etcd")["data"]["plan.json"])
    text = json.dumps(plan["config"])
    text = text.replace("/etc/etcd-tls/", f"{tmp_path}/").replace("/etc/etcd-jwt/", f"{tmp_path}/")
    ports = [ReservedPort() for _ in range(3)]
    for inside, port in zip(("2379", "2380", "2381"), ports, strict=True):
        text = text.replace(f"0.0.0.0:{inside}", f"{LOOPBACK}:{port.number}")
    peer = f"https://{LOOPBACK}:{ports[1].number}"
    own = {
        "name": "demo-etcd-0",
        "data-dir": str(tmp_path / "data"),
        "initial-advertise-peer-urls": peer,
        "advertise-client-urls": f"https://{LOOPBACK}:{ports[0].number}",
        "initial-cluster": f"demo-etcd-0={peer}",
        "initial-cluster-state": "new",
        "initial-cluster-token": plan["token"],
    }
    config = tmp_path / "etcd.yaml"
    config.write_text(json.dumps({**json.loads(text), **own}))
    endpoints = parse_endpoints(f"https://{LOOPBACK}:{ports[0].number}")
    me = Credentials("", "", root["ca.crt"], root["tls.crt"], root["tls.key"])
    stranger = Credentials("", "", root["ca.crt"])
    try:
        with Child([etcd, f"--config-file={config}"], name="etcd", folder=tmp_path):
            async with administering(endpoints, me) as cluster:
                patience = Patience(SystemClock(), 60, lambda line: None)
                listed = await patience.until(lambda: cluster.ask(Admin.members))
                assert [m.name for m in listed.members] == ["demo-etcd-0"]
            async with administering(endpoints, stranger) as cluster:
                short = Patience(SystemClock(), 1, lambda line: None)
                with pytest.raises(Refused):
                    await short.until(lambda: cluster.ask(Admin.members))
    finally:
        for port in ports:
            port.close()
