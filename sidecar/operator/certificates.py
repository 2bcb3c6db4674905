"""The webhooks' certificate and its authority: made and renewed, without I/O.

The authority lives for ten years and is replaced a year before its end; the certificate lives for
90 days and is renewed at two thirds. All stands in one Secret; clients trust every authority in
`ca.crt`, the new and the old one, as long as the old one is valid.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA, CA_KEY, CERT, KEY = "ca.crt", "ca.key", "tls.crt", "tls.key"

UNREADABLE = (
    ValueError,
    TypeError,  # a key with a password
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What reading certificates and keys raises, whatever somebody has put in their place."""

_CA_LIFE = dt.timedelta(days=3650)
_CA_RENEWED = dt.timedelta(days=365)  # before its end
_LIFE = dt.timedelta(days=90)
_SKEW = dt.timedelta(minutes=10)  # clocks of API servers that are behind


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate (PEM) and its key."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the Secret holds.

    Attributes:
        trusted: all authorities that clients are to trust, PEM, the newest first.
        authority: the newest one with its key.
        leaf: what the webhooks show.
    """

    trusted: bytes
    authority: Pair
    leaf: Pair

    def data(self) -> dict[str, bytes]:
        """Return the Secret's data."""
        return {
            CA: self.trusted,
            CA_KEY: self.authority.key,
            CERT: self.leaf.certificate,
            KEY: self.leaf.key,
        }


def read_bundle(data: Mapping[str, bytes]) -> Bundle | None:
    """Return what a Secret holds, or None where it is not whole, or could not be made here."""
    try:
        trusted = data[CA]
        newest = x509.load_pem_x509_certificates(trusted)[0]
        leaf = x509.load_pem_x509_certificate(data[CERT])
        _names(leaf)
        for certificate, name in ((leaf, KEY), (newest, CA_KEY)):
            key = serialization.load_pem_private_key(data[name], None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                return None
            if key.public_key() != certificate.public_key():
                return None
    except (KeyError, IndexError, *UNREADABLE):
        return None
    return Bundle(trusted, Pair(_pem(newest), data[CA_KEY]), Pair(data[CERT], data[KEY]))


def renewed(old: Bundle | None, names: Sequence[str], now: dt.datetime) -> Bundle | None:
    """Return what shall be in the place of `old`, or None: it is good for now.

    Args:
        old: what there is.
        names: DNS names of the webhooks' Service.
        now: with a time zone.
    """
    if old is None or _ca_is_due(old, now):
        authority = _authority(now)
        trusted = authority.certificate
        if old is not None:
            alive = [
                c
                for c in x509.load_pem_x509_certificates(old.trusted)
                if c.not_valid_after_utc > now
            ]
            trusted += b"".join(_pem(certificate) for certificate in alive)
        return Bundle(trusted, authority, _leaf(authority, names, now))
    if not _leaf_is_due(old, names, now):
        return None
    return Bundle(old.trusted, old.authority, _leaf(old.authority, names, now))


def usable_until(certificate: bytes, key: bytes) -> dt.datetime:
    """Return until when a certificate with this key can be served with, both PEM.

    Raises:
        ValueError: it is none, or the key is another one's; others of `UNREADABLE`, too.
    """
    found = x509.load_pem_x509_certificate(certificate)
    if serialization.load_pem_private_key(key, None).public_key() != found.public_key():
        raise ValueError("the key is that of another certificate")
    return found.not_valid_after_utc


def _ca_is_due(old: Bundle, now: dt.datetime) -> bool:
    authority = x509.load_pem_x509_certificate(old.authority.certificate)
    return (
        now >= authority.not_valid_after_utc - _CA_RENEWED or now < authority.not_valid_before_utc
    )


def _leaf_is_due(old: Bundle, names: Sequence[str], now: dt.datetime) -> bool:
    leaf = x509.load_pem_x509_certificate(old.leaf.certificate)
    authority = x509.load_pem_x509_certificate(old.authority.certificate)
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return (
        now >= leaf.not_valid_before_utc + life * 2 / 3
        or now < leaf.not_valid_before_utc  # made while a clock was ahead
        or _names(leaf) != set(names)
        or leaf.issuer != authority.subject
    )


def _names(leaf: x509.Certificate) -> set[str]:
    shown = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(shown.get_values_for_type(x509.DNSName))


def _authority(now: dt.datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # Its number makes the name of each authority another one.
    serial = x509.random_serial_number()
    name = _name(f"leader-sidecar-operator {serial:x}"[:64])
    certificate = (
        x509.CertificateBuilder(serial_number=serial)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(certificate), _key(key))


def _leaf(authority: Pair, names: Sequence[str], now: dt.datetime) -> Pair:
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    signer = serialization.load_pem_private_key(authority.key, None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)  # noqa: S101 - else it was not read
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder(serial_number=x509.random_serial_number())
        .subject_name(_name("leader-sidecar-operator"))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .not_valid_before(now - _SKEW)
        .not_valid_after(min(now + _LIFE, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),  # type: ignore[arg-type]
            critical=False,
        )
        .sign(signer, hashes.SHA256())
    )
    return Pair(_pem(certificate), _key(key))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
