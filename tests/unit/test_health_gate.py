"""The health gate: probes in, permission to stand out."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.core.health import GOOD_TO_RETURN, LONGEST_WAIT, Health, HealthGate

NEVER, HEALTHY, UNHEALTHY = Health.NEVER_HEALTHY, Health.HEALTHY, Health.UNHEALTHY


def after(gate: HealthGate, probes: str, start: float = 0.0, every: float = 1.0) -> HealthGate:
    """Feed good (+) and bad (-) probes at even distances, the first one at `start`."""
    for number, probe in enumerate(probes):
        gate = gate.after(is_good=probe == "+", now=start + number * every)
    return gate


def left_at(times: Iterable[float]) -> HealthGate:
    """Return a gate that became unhealthy at each of these times, and came back in between."""
    gate = HealthGate(failures=1)
    for at in times:
        while not gate.may_stand:
            gate = gate.after(is_good=True, now=at)
        gate = gate.after(is_good=False, now=at)
    return gate


@pytest.mark.parametrize(
    ("probes", "health"),
    [
        ("", NEVER),
        ("-----", NEVER),
        ("--+", HEALTHY),
        ("+", HEALTHY),
        ("+--", HEALTHY),
        ("+--+--", HEALTHY),
        ("+---", UNHEALTHY),
        ("+--+---", UNHEALTHY),
        ("+---++", UNHEALTHY),
    ],
)
def test_health_after_some_probes(probes: str, health: Health) -> None:
    gate = after(HealthGate(failures=3), probes)
    assert gate.health is health
    assert gate.may_stand is (health is HEALTHY)


def test_it_comes_back_after_ten_seconds_and_not_before() -> None:
    gate = after(HealthGate(failures=3), "+---")
    assert gate.left_at == 3
    assert after(gate, "+++", start=10.9, every=0.01).health is UNHEALTHY
    assert after(gate, "+++", start=12.9, every=0.05).health is HEALTHY
    assert after(gate, "++++++++++", start=4).health is HEALTHY  # the last at 13
    assert after(gate, "+++++++++", start=4).health is UNHEALTHY


def test_it_comes_back_after_three_good_probes_in_a_row_and_not_before() -> None:
    gate = after(HealthGate(failures=3), "+---")
    assert after(gate, "++", start=100).health is UNHEALTHY
    assert after(gate, "++-++", start=100).health is UNHEALTHY
    assert after(gate, "++-+++", start=100).health is HEALTHY


def test_the_wait_doubles_up_to_five_minutes_with_each_leaving_soon_after_another() -> None:
    waits = [left_at(range(0, 301 * n, 301)).wait for n in range(1, 8)]
    assert waits == [10, 20, 40, 80, 160, 300, 300]


def test_the_wait_is_short_again_after_ten_quiet_minutes() -> None:
    assert left_at([0, 300, 900]).wait == 40
    assert left_at([0, 300, 900.1]).wait == 10


def test_bad_probes_while_standing_back_do_not_prolong_the_wait() -> None:
    gate = after(HealthGate(failures=1), "+-")
    assert after(gate, "----", start=5).returns_at == gate.returns_at == 11


def test_at_least_one_failure_is_needed() -> None:
    with pytest.raises(ValueError, match="failures must be at least 1, not 0"):
        HealthGate(failures=0)


@given(st.integers(1, 4), st.lists(st.tuples(st.booleans(), st.floats(0.1, 200)), max_size=60))
def test_the_promises_hold_for_any_probes(failures: int, probes: list[tuple[bool, float]]) -> None:
    gate, now, said = HealthGate(failures), 0.0, ""
    for is_good, pause in probes:
        now += pause
        said += "+" if is_good else "-"
        before, gate = gate, gate.after(is_good=is_good, now=now)
        assert gate.may_stand is False or "+" in said
        if before.may_stand:
            assert gate.may_stand is not said.endswith("-" * failures)
        elif gate.may_stand and before.left_at is not None:
            assert said.endswith("+" * GOOD_TO_RETURN)
            assert now - before.left_at >= 10
        assert gate.wait <= LONGEST_WAIT
