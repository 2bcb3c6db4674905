"""The judge of the other tests finds two leaders, shared tokens and tokens that shrink."""

import pytest

from tests.integration.support_record import Belief, problems


def belief(name: str, token: int, since: float, until: float) -> Belief:
    return Belief(name, token, since, until, until)


def test_terms_that_follow_each_other_are_fine() -> None:
    record = [belief("a", 2, 0, 1), belief("a", 2, 1.5, 2), belief("b", 3, 2, 3)]
    assert problems(record) == []


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ([belief("a", 2, 0, 2), belief("b", 3, 1, 3)], "two leaders for 1.0"),
        ([belief("b", 3, 1, 3), belief("a", 2, 0, 2)], "two leaders for 1.0"),
        ([belief("a", 2, 0, 1), belief("b", 2, 1, 2)], "one token of two leaders"),
        ([belief("a", 3, 0, 1), belief("b", 2, 1, 2)], "tokens shrink"),
    ],
)
def test_what_must_never_be_is_found(record: list[Belief], problem: str) -> None:
    found = problems(record)
    assert found
    assert any(sentence.startswith(problem) for sentence in found)


def test_a_store_that_was_restored_may_let_tokens_shrink() -> None:
    record = [belief("a", 3, 0, 1), belief("b", 2, 1, 2)]
    assert problems(record, tokens_may_shrink=True) == []
