"""The webhooks' certificate and its authority: made, renewed in time, trusted over a change."""

import datetime as dt
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from sidecar.operator.certificates import Bundle, not_after, read_bundle, renewed

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


def _count(pem: bytes) -> int:
    certificates: Sequence[x509.Certificate] = x509.load_pem_x509_certificates(pem)
    return len(certificates)
