"""Certificates for the TLS tests: a good authority, a foreign one, and what they issued."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
DAY = dt.timedelta(days=1)


def not_after(pem: bytes) -> dt.datetime:
    """Return until when the first certificate of a PEM text is valid."""
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What a TLS test needs; `expired` and `foreign` are client certificates to be refused."""

    ca: Path
    server: KeyPair
    client: KeyPair
    expired: KeyPair
    foreign: KeyPair
    foreign_ca: Path


class Authority:
    """A certificate authority whose files are in one directory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = _common_name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        cert = (
            _builder(self._name, self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.cert = folder / f"{name}.crt"
        self.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, *, common_name: str, hosts: Sequence[str] = (), expired: bool = False
    ) -> KeyPair:
        """Issue NAME.crt and NAME.key, good for servers and clients; expired means since an hour.

        Both uses even for a server: etcd's gateway presents the server's certificate to etcd.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(
            _common_name(common_name), self._name, key.public_key(), expired=expired
        ).add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_subject(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        pair = KeyPair(self._folder / f"{name}.crt", self._folder / f"{name}.key")
        signed = builder.sign(self._key, hashes.SHA256())
        pair.cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair


def make_tls(folder: Path, *, client_name: str = "client") -> TlsFiles:
    """Make two authorities and their certificates; `client_name` is the client's common name."""
    ours = Authority(folder, "ca")
    foreign = Authority(folder, "foreign-ca")
    return TlsFiles(
        ca=ours.cert,
        server=ours.issue("server", common_name="etcd", hosts=LOOPBACK_NAMES),
        client=ours.issue("client", common_name=client_name),
        expired=ours.issue("expired", common_name=client_name, expired=True),
        foreign=foreign.issue("foreign", common_name=client_name),
        foreign_ca=foreign.cert,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    expired: bool = False,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    until = now - dt.timedelta(hours=1) if expired else now + DAY
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(until)
    )


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _subject(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
