"""Who we are to etcd, and whom we trust: files are read here, with clear errors.

Certificates end, and whoever issues them replaces their files in time. TLS asks for them only while
it connects, so they are read again for each connection.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.errors import ConfigError

log = logging.getLogger(__name__)

_PEM = re.compile(
    rb"-----BEGIN CERTIFICATE-----\s*([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----", re.DOTALL
)
_SEQUENCE, _UTC_TIME, _EXPLICIT_VERSION = 0x30, 0x17, 0xA0
_LONG_FORM = 0x80


@dataclass(frozen=True, slots=True)
class Credentials:
    """Bytes to connect with; all optional.

    Attributes:
        user: etcd's user name, "" for none.
        password: its password; never shown by `repr`.
        cacert: PEM of the authority that signed the servers' certificates.
        cert: PEM of the own certificate.
        key: PEM of its key; never shown by `repr`.
    """

    user: str = ""
    password: str = field(default="", repr=False)
    cacert: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


def load_credentials(
    *,
    user: str = "",
    password_file: Path | None = None,
    cacert: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    now: dt.datetime,
) -> Credentials:
    """Read the files that the settings name.

    Raises:
        ConfigError: a file cannot be read, or the own certificate is not valid at `now`.
    """
    problems: list[str] = []

    def read(flag: str, path: Path | None) -> bytes | None:
        if path is None:
            return None
        try:
            return path.read_bytes()
        except OSError as exc:
            problems.append(f"{flag}: cannot read {str(path)!r}: {exc.strerror}")
            return None

    password = read("--password-file", password_file) or b""
    own = read("--cert", cert)
    trusted, secret = read("--cacert", cacert), read("--key", key)
    if own is not None:
        problems += [f"--cert: {str(cert)!r} {p}" for p in certificate_problems(own, now)]
    if problems:
        raise ConfigError(problems)
    return Credentials(user, password.decode().rstrip("\r\n"), trusted, own, secret)


class RenewedCredentials:
    """The credentials of each new connection: what the files hold by then.

    Files that cannot be used (any more, or just now) leave those in use that were read before.

    Args:
        load: reads the files, as `load_credentials` does.

    Raises:
        ConfigError: they cannot be used from the beginning.
    """

    def __init__(self, load: Callable[[], Credentials]) -> None:
        self._load = load
        self._last = load()
        self._told = ""

    def __call__(self) -> Credentials:
        """Return the credentials to connect with now."""
        try:
            found, problem = self._load(), ""
        except ConfigError as exc:
            found, problem = self._last, str(exc)
        if problem and problem != self._told:
            log.warning("credentials cannot be read again error=%s", problem)
        if found != self._last:
            log.info("credentials have changed")
        self._last, self._told = found, problem
        return found


def certificate_problems(pem: bytes, now: dt.datetime) -> list[str]:
    """Say what is wrong with a PEM certificate's period of validity; an empty list is good."""
    try:
        first, last = validity(pem)
    except ValueError as exc:
        return [f"is no PEM certificate: {exc}"]
    if now > last:
        return [f"expired at {last:%Y-%m-%dT%H:%M:%SZ}; use a certificate that is valid now"]
    if now < first:
        return [f"is not valid before {first:%Y-%m-%dT%H:%M:%SZ}; check it and the clock"]
    return []


def validity(pem: bytes) -> tuple[dt.datetime, dt.datetime]:
    """Return from when until when the first certificate of a PEM file is valid.

    The standard library does not tell that of a certificate at rest, so its DER is walked:
    Certificate { TBSCertificate { [0] version?, serial, algorithm, issuer, validity … (RFC 5280).

    Raises:
        ValueError: there is no certificate in it.
    """
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("no BEGIN CERTIFICATE block")
    try:
        der = base64.b64decode(b"".join(found[1].split()), validate=True)
        certificate = _open(der, 0, _SEQUENCE)
        at = _open(der, certificate, _SEQUENCE)
        if der[at] == _EXPLICIT_VERSION:
            at = _skip(der, at)
        for _ in ("serial", "algorithm", "issuer"):
            at = _skip(der, at)
        first = _open(der, at, _SEQUENCE)
        return _time(der, first), _time(der, _skip(der, first))
    except (IndexError, binascii.Error) as exc:
        raise ValueError("its content is cut off") from exc


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Return (start of the content, its length) of the element at `at`."""
    size = der[at + 1]
    if size < _LONG_FORM:
        return at + 2, size
    width = size - _LONG_FORM
    return at + 2 + width, int.from_bytes(der[at + 2 : at + 2 + width], "big")


def _open(der: bytes, at: int, tag: int) -> int:
    if der[at] != tag:
        raise ValueError("its content is not a certificate's")
    return _length(der, at)[0]


def _skip(der: bytes, at: int) -> int:
    start, size = _length(der, at)
    return start + size


def _time(der: bytes, at: int) -> dt.datetime:
    start, size = _length(der, at)
    text = der[start : start + size].decode("ascii")
    layout = "%y%m%d%H%M%SZ" if der[at] == _UTC_TIME else "%Y%m%d%H%M%SZ"
    return dt.datetime.strptime(text, layout).replace(tzinfo=dt.UTC)
