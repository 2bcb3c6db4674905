"""What makes a status document worth believing, before any file or clock comes into it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.boottime import STATUS_LIMIT, is_past, parse_status

CLAIM: dict[str, Any] = {
    "version": 1,
    "role": "leader",
    "token": 7,
    "key": "/e/1",
    "valid_until_boottime": 100.5,
    "boot_id": "b",
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def parsed(**changes: object) -> tuple[dict[str, object], str | None]:
    return parse_status(json.dumps(CLAIM | changes).encode())


def test_a_whole_claim_is_taken() -> None:
    assert parsed() == (CLAIM, None)


def test_a_follower_needs_to_say_no_more_than_that() -> None:
    document, problem = parse_status(b'{"version": 1, "role": "follower"}')
    assert (document["role"], problem) == ("follower", None)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"leader"',
        b"\xff\xfe\x00",
        b'{"role": "leader"}',
        b'{"version": 1}',
        b'{"version": 1, "role": ["leader"]}',
        b'{"version": "1", "role": "leader"}',
        b'{"version": true, "role": "follower"}',
        b'{"version": 0, "role": "follower"}',
        b"[" * 100_000,
        b"1" * 5_000,
    ],
)
def test_what_is_no_document_is_malformed(raw: bytes) -> None:
    assert parse_status(raw) == ({}, "malformed")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", None),
        ("token", 0),
        ("token", -1),
        ("token", "7"),
        ("token", 7.0),
        ("token", True),
        ("key", None),
        ("key", ""),
        ("key", 7),
        ("valid_until_boottime", None),
        ("valid_until_boottime", "100.5"),
        ("valid_until_boottime", True),
        ("valid_until_boottime", float("inf")),
        ("valid_until_boottime", float("nan")),
        ("valid_until_boottime", 10**400),
    ],
)
def test_a_claim_with_a_broken_part_is_malformed(name: str, value: object) -> None:
    assert parsed(**{name: value}) == ({}, "malformed")


def test_a_version_from_the_future_is_not_guessed_at() -> None:
    assert parsed(version=2) == ({}, "unknown_version")


def test_a_huge_document_is_not_even_parsed() -> None:
    good = json.dumps(CLAIM).encode()
    assert parse_status(good.ljust(STATUS_LIMIT)) == (CLAIM, None)
    assert parse_status(good.ljust(STATUS_LIMIT + 1)) == ({}, "too_large")


def test_a_claim_ends_exactly_at_its_deadline() -> None:
    document, _ = parsed(valid_until_boottime=100.5)
    assert not is_past(document, 100.4999)
    assert is_past(document, 100.5)


def test_a_follower_is_never_past() -> None:
    assert not is_past({"role": "follower"}, 1e9)


@given(st.binary())
def test_no_bytes_raise(raw: bytes) -> None:
    parse_status(raw)


@given(st.dictionaries(st.sampled_from(sorted(CLAIM)), JSON_VALUES))
def test_no_mix_of_values_raises_or_passes_for_less_than_a_whole_claim(
    changes: dict[str, object],
) -> None:
    document, problem = parsed(**changes)
    if problem is None and document["role"] == "leader":
        assert isinstance(document["token"], int)
        assert document["token"] > 0
        assert isinstance(document["key"], str)
        assert is_past(document, float("inf"))
