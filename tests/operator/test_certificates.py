"""The webhooks' certificate and its authority: made, renewed in time, trusted over a change."""

import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sidecar.operator.certificates import Bundle, read_bundle, renewed, usable_until
from tests.support.tls import not_after

NAMES = ("op.ops.svc", "op.ops")
NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def made(now: dt.datetime = NOW, old: Bundle | None = None) -> Bundle:
    found = renewed(old, NAMES, now)
    assert found is not None
    return found


def trusts(client: bytes, server: Bundle, name: str, tmp_path: Path) -> bool:
    """Whether a TLS client that trusts `client` takes the server's certificate."""
    chain, key = tmp_path / "chain", tmp_path / "key"
    chain.write_bytes(server.leaf.certificate)
    key.write_bytes(server.leaf.key)
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(chain, key)
    theirs = ssl.create_default_context(cadata=client.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = theirs.wrap_bio(to_client, to_server, server_hostname=name)
    other = ours.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError:
                return False
    return True


@pytest.fixture
def today() -> dt.datetime:
    """The real time: TLS looks at the clock."""
    return dt.datetime.now(dt.UTC)


def test_who_trusts_the_authority_takes_the_certificate(tmp_path: Path, today: dt.datetime) -> None:
    found = made(today)
    assert trusts(found.trusted, found, "op.ops.svc", tmp_path)
    assert not trusts(found.trusted, found, "other.ops.svc", tmp_path)
    assert not trusts(made(today).trusted, found, "op.ops.svc", tmp_path)


def test_it_lasts_90_days_and_is_renewed_at_two_thirds_by_the_same_authority() -> None:
    first = made()
    assert not_after(first.leaf.certificate) == NOW + 90 * DAY
    assert not_after(first.trusted) == NOW + 3650 * DAY
    assert renewed(first, NAMES, NOW + 59 * DAY) is None
    second = made(NOW + 60 * DAY, first)
    assert second.trusted == first.trusted
    assert second.leaf.certificate != first.leaf.certificate
    assert not_after(second.leaf.certificate) == NOW + 150 * DAY


def test_another_name_needs_another_certificate() -> None:
    assert renewed(made(), ("new.ops.svc", "new.ops"), NOW) is not None


def test_a_new_authority_comes_a_year_before_the_old_one_ends_and_both_are_trusted(
    tmp_path: Path, today: dt.datetime
) -> None:
    first = made(today - 3290 * DAY)
    old = made(today - 10 * DAY, first)
    assert old.trusted == first.trusted
    new = made(today, old)
    assert _count(new.trusted) == 2
    assert trusts(new.trusted, new, "op.ops.svc", tmp_path)
    assert trusts(new.trusted, old, "op.ops.svc", tmp_path)
    assert renewed(new, NAMES, today) is None


def test_an_authority_that_has_ended_is_trusted_no_more() -> None:
    old = made(NOW - 3651 * DAY)
    assert _count(made(NOW, old).trusted) == 1


def test_what_a_secret_holds_is_read_back_and_anything_less_is_made_anew() -> None:
    found = made()
    assert read_bundle(found.data()) == found
    for name in found.data():
        assert read_bundle({k: v for k, v in found.data().items() if k != name}) is None
        assert read_bundle({**found.data(), name: b"rubbish"}) is None


def test_what_was_made_while_a_clock_was_ahead_is_made_anew(
    tmp_path: Path, today: dt.datetime
) -> None:
    early = made(today + 30 * DAY)
    new = made(today, early)
    assert trusts(new.trusted, new, "op.ops.svc", tmp_path)
    assert new.trusted.endswith(early.trusted)  # which others may still show
    assert renewed(new, NAMES, today) is None
    leaf = made(today + 70 * DAY, made(today))
    assert not trusts(leaf.trusted, leaf, "op.ops.svc", tmp_path)
    again = made(today, leaf)
    assert again.trusted == leaf.trusted
    assert trusts(again.trusted, again, "op.ops.svc", tmp_path)


def test_clocks_of_replicas_that_differ_a_little_renew_nothing() -> None:
    assert renewed(made(NOW + dt.timedelta(minutes=9)), NAMES, NOW) is None


def test_what_cannot_have_been_made_here_is_made_anew() -> None:
    found = made()
    for name in ("tls.key", "ca.key"):
        locked = encrypted(found.data()[name])
        assert read_bundle({**found.data(), name: locked}) is None
        with pytest.raises(TypeError, match="assword"):
            usable_until(found.leaf.certificate, encrypted(found.leaf.key))
    assert read_bundle({**found.data(), "tls.crt": nameless(found)}) is None
    assert read_bundle({**found.data(), **with_rsa_authority()}) is None


def encrypted(key: bytes) -> bytes:
    """The same key with a password."""
    return serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )


def nameless(found: Bundle) -> bytes:
    """A certificate for the same key, by the same authority, without any name."""
    issuer = x509.load_pem_x509_certificate(found.authority.certificate)
    leaf = x509.load_pem_x509_certificate(found.leaf.certificate)
    signer = serialization.load_pem_private_key(found.authority.key, None)
    certificate = _builder(leaf.subject, issuer.subject).public_key(leaf.public_key())
    return certificate.sign(signer, hashes.SHA256()).public_bytes(  # type: ignore[arg-type]
        serialization.Encoding.PEM
    )


def with_rsa_authority() -> dict[str, bytes]:
    """An authority as somebody else would make one."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "theirs")])
    certificate = _builder(name, name).public_key(key.public_key()).sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return {"ca.crt": certificate.public_bytes(pem), "ca.key": key.private_bytes(pem, pkcs8, plain)}


def _builder(subject: x509.Name, issuer: x509.Name) -> x509.CertificateBuilder:
    made_at = x509.CertificateBuilder().not_valid_before(NOW - DAY).not_valid_after(NOW + DAY)
    number = x509.random_serial_number()
    return made_at.serial_number(number).subject_name(subject).issuer_name(issuer)


def _count(pem: bytes) -> int:
    certificates: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(pem)
    return len(certificates)
