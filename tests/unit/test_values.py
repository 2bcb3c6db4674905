"""Durations and the like, as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.values import parse_command, parse_duration, parse_switch, quoted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("0.5", 0.5), (".5", 0.5), ("500ms", 0.5), ("5s", 5), ("2m", 120), ("0", 0)],
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 5",
        "5\n",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "5h",
        "5S",
        "s",
        ".",
        "1_0",
        "\u0665",
        "9" * 400,
    ],
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; give seconds"):
        parse_duration(text)


@given(st.text())
def test_a_duration_is_finite_and_not_negative_or_refused_in_a_printable_sentence(
    text: str,
) -> None:
    try:
        assert 0 <= parse_duration(text) < float("inf")
    except ValueError as exc:
        assert str(exc).isprintable()  # noqa: PT017 - either outcome is fine, a third is not


@given(st.integers(0, 10**6))
def test_all_units_agree(milliseconds: int) -> None:
    text = f"{milliseconds / 1000:.3f}"
    assert parse_duration(f"{milliseconds}ms") == parse_duration(text) == parse_duration(f"{text}s")


@given(st.text(max_size=200))
def test_what_is_quoted_is_one_printable_line(text: str) -> None:
    assert quoted(text).isprintable()


@pytest.mark.parametrize(("text", "value"), [("true", True), ("ON", True), ("0", False)])
def test_a_switch_takes_the_usual_words(text: str, value: bool) -> None:
    assert parse_switch(text) is value


def test_a_command_is_split_as_a_shell_would() -> None:
    assert parse_command("sh -c 'a | b' \"\"") == ("sh", "-c", "a | b", "")
    with pytest.raises(ValueError, match="names no program"):
        parse_command("a\0b")
