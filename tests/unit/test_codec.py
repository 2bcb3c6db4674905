import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.codec import (
    VALUE_LIMIT,
    Action,
    Answer,
    Proposal,
    Request,
    TermRecord,
    decode_answer,
    decode_proposal,
    decode_request,
    decode_term,
    encode_answer,
    encode_proposal,
    encode_request,
    encode_term,
)

KEY = b"/e/694d7f2a"


@given(st.text(), st.text(), st.integers(0, 10**6))
def test_a_proposal_survives_the_way_there_and_back(id_: str, address: str, priority: int) -> None:
    proposal = Proposal(id_, address, priority)
    assert decode_proposal(KEY, encode_proposal(proposal)) == proposal


@given(st.binary(max_size=300))
def test_decoding_a_strangers_value_never_raises(value: bytes) -> None:
    assert decode_proposal(KEY, value).is_foreign or value.startswith(b"{")
    decode_answer(value)
    assert decode_request(value, 1) is None or value.startswith(b"{")
    assert decode_term(value) is None or value.startswith(b"{")


@pytest.mark.parametrize(
    ("value", "id_"),
    [
        (b"master2-192.168.0.107:9091", "master2-192.168.0.107:9091"),
        (b"\xff\xfe", "694d7f2a"),
        (b"two\nlines", "694d7f2a"),
        (b"", "694d7f2a"),
        (b"x" * 201, "694d7f2a"),
        (b"x" * (VALUE_LIMIT + 1), "694d7f2a"),
        (b'{"v":2,"id":"a"}', '{"v":2,"id":"a"}'),
        (b'{"v":1,"id":7}', '{"v":1,"id":7}'),
        (b"[" * 5000, "694d7f2a"),
        (b"[1]", "[1]"),
    ],
)
def test_a_foreign_value_is_named_by_its_text_or_its_key(value: bytes, id_: str) -> None:
    assert decode_proposal(KEY, value) == Proposal(id_, "", None)


def test_values_too_large_to_be_ours_are_not_looked_into() -> None:
    assert decode_term(b" " * (VALUE_LIMIT + 1)) is None


def test_a_request_survives_the_way_there_and_back() -> None:
    request = Request(Action.HANDOVER, 8123, "master-1", lease=7)
    assert decode_request(encode_request(request), 7) == request


@pytest.mark.parametrize(
    "fields",
    [{"action": "explode", "token": 1, "to": ""}, {"action": "resign", "token": "1", "to": ""}],
)
def test_a_request_of_another_shape_is_none(fields: dict[str, object]) -> None:
    assert decode_request(json.dumps({"v": 1, **fields}).encode(), 1) is None


def test_an_answer_survives_the_way_there_and_back() -> None:
    answer = Answer(accepted=False, reason="nobody else stands")
    assert decode_answer(encode_answer(answer)) == answer
    assert not decode_answer(b"?").accepted


@pytest.mark.parametrize(
    "record",
    [
        TermRecord(7, "a", 1.5),
        TermRecord(7, "a", 1.5, until=2.5, reason="resigned", before="lost"),
    ],
)
def test_a_term_survives_the_way_there_and_back(record: TermRecord) -> None:
    assert decode_term(encode_term(record)) == record


def test_a_term_of_another_shape_is_none() -> None:
    assert decode_term(b'{"v":1,"token":"7"}') is None
    assert decode_term(b"?") is None
    assert decode_term(b'{"v":1,"token":7,"id":"a","from":1,"until":"late"}') == TermRecord(
        7, "a", 1.0
    )


def test_numbers_and_texts_that_nobody_of_ours_writes_are_refused() -> None:
    assert decode_term(b'{"v":1,"token":7,"id":"a","from":' + b"9" * 400 + b"}") is None
    assert decode_term(b'{"v":1,"token":-7,"id":"a","from":1}') is None
    assert decode_request(b'{"v":1,"action":"handover","token":7,"to":"\\ud800"}', 1) is None


@pytest.mark.parametrize("number", ["1e20", "-1", "NaN", "Infinity", "null", '"soon"'])
def test_a_term_at_no_time_is_none_of_ours(number: str) -> None:
    """Anybody who reaches etcd may write it, and a year beyond 9999 can be shown nowhere."""
    assert decode_term(f'{{"v":1,"token":1,"id":"a","from":{number}}}'.encode()) is None
    ended = decode_term(f'{{"v":1,"token":1,"id":"a","from":5,"until":{number}}}'.encode())
    assert ended == TermRecord(1, "a", 5.0)
