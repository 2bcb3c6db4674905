"""Certificates by a real cert-manager: for the webhooks, and for an etcd and its clients."""

import base64
import itertools
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sidecar.addresses import own_address
from tests.e2e.operator.api_server import ApiServer
from tests.e2e.operator.cert_manager import CertManager
from tests.e2e.operator.deployed import deploy, rendered
from tests.e2e.operator.named_etcd import NamedEtcd
from tests.e2e.operator.shop import Replica, Shop
from tests.e2e.operator.test_admission import evict, leave
from tests.integration.support import Sidecar, Team
from tests.support import netns
from tests.support.tls import not_after

# Long, as cert-manager has to be built: 6 minutes, once.
pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(1800)]

WEBHOOKS = "demo-operator-tls"


@pytest.fixture(scope="module")
def cert_manager(
    server: ApiServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CertManager]:
    """Return a cert-manager for all tests."""
    with CertManager(server, tmp_path_factory.mktemp("cert-manager")) as made:
        yield made


@pytest.fixture
def replica(shop: Shop, cert_manager: CertManager) -> Iterator[Replica]:
    """One replica that is ready, with the chart's webhooks and a certificate of cert-manager's."""
    try:
        yield deploy(shop, "operator.certificates=certManager")
    finally:
        leave(shop.server)


def trusted(server: ApiServer, kind: str) -> set[bytes]:
    """Return what the API server trusts the webhooks by."""
    found = server.admin.get(f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations")
    hooks = [hook for thing in found["items"] for hook in thing["webhooks"]]
    return {base64.b64decode(hook["clientConfig"].get("caBundle", "")) for hook in hooks}


def shown(replica: Replica) -> bytes:
    """Return the certificate that a new connection to the webhook is shown."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    address = (own_address(), replica.webhook_port)
    with (
        socket.create_connection(address, timeout=10) as plain,
        anybody.wrap_socket(plain, server_hostname="demo-operator") as tls,
    ):
        return tls.getpeercert(binary_form=True) or b""


def first_of(chain: bytes) -> bytes:
    """Return the leaf of a chain, as DER."""
    end = b"-----END CERTIFICATE-----"
    return ssl.PEM_cert_to_DER_cert((chain.split(end)[0] + end).decode())


def asked(replica: Replica) -> float:
    """How often the API server has asked about an eviction."""
    return replica.metric("leader_sidecar_operator_admissions_total", webhook="evict")


def wait_for_trust(shop: Shop, replica: Replica) -> float:
    """Wait until the API server asks about an eviction; return how often it has."""
    shop.pod("first")

    def is_asked() -> bool:
        assert evict(shop, "first", dry_run=True) == 201
        return asked(replica) > 0

    shop.until(is_asked, "the webhook is asked")
    return asked(replica)


def test_the_api_server_reaches_webhooks_whose_certificate_is_cert_managers(
    shop: Shop, replica: Replica, cert_manager: CertManager
) -> None:
    secret = cert_manager.secret(shop.namespace, WEBHOOKS)
    authority = {secret["ca.crt"]}
    shop.until(lambda: trusted(shop.server, "mutating") == authority, "injected")
    shop.until(lambda: trusted(shop.server, "validating") == authority, "injected")
    assert wait_for_trust(shop, replica) == 1
    assert shown(replica) == first_of(secret["tls.crt"])
    ends = "leader_sidecar_operator_certificate_not_after_timestamp_seconds"
    assert replica.metric(ends) == not_after(secret["tls.crt"]).timestamp()


def test_no_eviction_goes_by_the_webhook_while_its_certificate_is_renewed(
    shop: Shop, replica: Replica, cert_manager: CertManager
) -> None:
    authority = {cert_manager.secret(shop.namespace, WEBHOOKS)["ca.crt"]}
    shop.until(lambda: trusted(shop.server, "validating") == authority, "injected")
    number = itertools.count(1 + wait_for_trust(shop, replica))
    shop.pod("m-0")
    shop.pod("m-1")
    old = replica.child.pid
    secret = cert_manager.renew(shop.namespace, WEBHOOKS)

    def is_shown() -> bool:
        assert evict(shop, "m-0", dry_run=True) == 201
        assert asked(replica) == next(number)
        return shown(replica) == first_of(secret["tls.crt"])

    shop.until(is_shown, "the new certificate is served")
    assert evict(shop, "m-1") == 201
    assert asked(replica) == next(number)
    assert replica.child.pid == old
    assert trusted(shop.server, "validating") == authority


CLIENTS = ("root", "sidecar", "master", "operator")


@pytest.fixture
def etcd_by_name(
    shop: Shop, cert_manager: CertManager, tmp_path: Path
) -> Iterator[tuple[NamedEtcd, str]]:
    """Three members with certificates of cert-manager's, and the election of the chart."""
    reason = netns.missing_reason()
    if reason is not None:
        pytest.skip(reason)
    objects = rendered(shop.namespace, ("tls.mode=certManager", "users.mode=certificate"), "etcd")
    shop.server.must_apply(*(o for o in objects if o["apiVersion"] == "cert-manager.io/v1"))
    cert_manager.wait_for(shop.namespace, *(f"demo-tls-{who}" for who in ("server", *CLIENTS)))
    with NamedEtcd(objects, "demo-etcd", tmp_path) as made:
        for who in ("server", *CLIENTS):
            made.put(who, cert_manager.secret(shop.namespace, f"demo-tls-{who}"))
        made.start()
        yield made, f"/leader-sidecar/{shop.namespace}/demo"


def candidates(team: Team, etcd: NamedEtcd) -> tuple[Sidecar, Sidecar]:
    """Start two with the sidecars' certificate, of which the first one leads."""
    options = ("--label=false", *etcd.credentials("sidecar"))
    a, b = (team.add(name, *options, ttl=5, prefix=etcd.prefix) for name in ("a", "b"))
    a.start().wait_for("leader")
    b.start()
    team.wait_for_queue("a", "b")
    return a, b


def changes_hands(team: Team, etcd: NamedEtcd) -> bool:
    """Whether the leader hands over to the other candidate when it is asked to."""
    leader = team.wait_for_leader()
    token = leader.token or 0
    done = etcd.run("handover", *team.store, *etcd.credentials("sidecar"))
    assert done.returncode == 0, done.stderr
    return team.wait_for_leader(after=token) is not leader


def test_members_and_clients_meet_by_the_services_names_and_clients_are_known_by_theirs(
    etcd_by_name: tuple[NamedEtcd, str], shop: Shop, cert_manager: CertManager, tmp_path: Path
) -> None:
    etcd, election = etcd_by_name
    domain = f"demo-etcd.{shop.namespace}.svc"
    names = {d for end in ("", ".cluster.local") for d in (domain + end, f"*.{domain}{end}")}
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    for who in ("server", *CLIENTS):
        secret = cert_manager.secret(shop.namespace, f"demo-tls-{who}")
        found = x509.load_pem_x509_certificate(secret["tls.crt"])
        (common,) = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        uses = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        sans = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_server = who == "server"
        assert common.value == ("etcd" if is_server else who)
        assert set(uses) == (both if is_server else {ExtendedKeyUsageOID.CLIENT_AUTH})
        assert set(sans.get_values_for_type(x509.DNSName)) == (
            {"localhost", *names} if is_server else {who}
        )
    with Team(etcd.endpoints, tmp_path, election=election) as team:
        candidates(team, etcd)
        assert changes_hands(team, etcd)
        team.judge()
    listed = etcd.etcdctl("root", "member", "list").stdout
    assert listed.count(" started,") == 3
    assert listed.count(f".{domain}:2380") == 3
    denied = etcd.etcdctl("sidecar", "put", "elsewhere", "x")
    assert "permission denied" in denied.stderr


def test_renewed_certificates_are_used_by_members_and_clients_that_go_on_running(
    etcd_by_name: tuple[NamedEtcd, str], shop: Shop, cert_manager: CertManager, tmp_path: Path
) -> None:
    etcd, election = etcd_by_name
    with Team(etcd.endpoints, tmp_path, election=election) as team:
        both = candidates(team, etcd)
        for who in ("server", "sidecar"):
            etcd.put(who, cert_manager.renew(shop.namespace, f"demo-tls-{who}"))
        served = cert_manager.secret(shop.namespace, "demo-tls-server")["tls.crt"]
        for name in etcd.plan.names:
            shown_now = etcd.shown(f"{name}.{etcd.plan.endpoints[0].host}", "root")
            assert first_of(shown_now) == first_of(served)
            etcd.restart(name)  # so that clients connect again
        for sidecar in both:
            sidecar.wait_for_log("INFO .*credentials have changed")
        assert changes_hands(team, etcd)
        team.judge()


def test_who_has_the_authoritys_old_certificate_trusts_what_it_signs_with_its_new_one(
    etcd_by_name: tuple[NamedEtcd, str], shop: Shop, cert_manager: CertManager
) -> None:
    etcd, _ = etcd_by_name
    cert_manager.renew(shop.namespace, "demo-ca")
    old = cert_manager.secret(shop.namespace, "demo-tls-sidecar")
    server = cert_manager.renew(shop.namespace, "demo-tls-server")
    assert server["ca.crt"] != old["ca.crt"]
    etcd.put("server", server)
    for name in etcd.plan.names:
        etcd.restart(name)
        shown_now = etcd.shown(f"{name}.{etcd.plan.endpoints[0].host}", "sidecar")
        assert first_of(shown_now) == first_of(server["tls.crt"])
    etcd.put("sidecar", cert_manager.renew(shop.namespace, "demo-tls-sidecar"))
    assert etcd.etcdctl("sidecar", "endpoint", "health").returncode == 0
