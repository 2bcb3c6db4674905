import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sidecar.core.lease import NEVER, Timing, least_margin


def test_the_least_margin_is_a_tenth_of_the_ttl_and_at_least_200_ms() -> None:
    assert least_margin(1) == 0.2
    assert least_margin(5) == 0.5


@pytest.mark.parametrize(("ttl", "margin"), [(5, 0.4), (2, 0.1), (5, 5.0), (5, 6.0)])
def test_a_margin_that_breaks_the_promise_is_refused(ttl: float, margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        Timing(ttl, margin)


def test_the_deadline_counts_from_sending_and_stops_a_margin_early() -> None:
    assert Timing(5, 0.5).deadline(100.0) == 104.5
    assert Timing(5, 0.5).deadline(NEVER) == NEVER


def test_a_granted_ttl_gets_the_least_margin_where_none_or_too_small_a_one_was_asked_for() -> None:
    assert Timing.granted(5, None) == Timing(5, 0.5)
    assert Timing.granted(20, 0.5) == Timing(20, 2.0)
    assert Timing.granted(5, 1.5) == Timing(5, 1.5)
    assert Timing.granted(3, 4.0).margin == pytest.approx(0.3)


def test_a_try_leaves_time_for_the_endpoints_that_are_left() -> None:
    timing = Timing(8, 0.8)
    assert timing.renew_every == 1.6
    assert timing.try_limit(7.0, 3) == 1.0
    assert timing.try_limit(1.8, 3) == pytest.approx(0.6)
    assert timing.try_limit(0.3, 3) == 0.25
    assert timing.try_limit(9.0, 0) == 1.0


def test_where_no_time_is_left_a_slow_store_is_given_the_time_to_answer_at_all() -> None:
    assert Timing(5, 0.5).try_limit(0.0, 3) == 1.0
    assert Timing(5, 0.5).try_limit(float("-inf"), 1) == 1.0
    assert Timing(16, 1.6).try_limit(-1.0, 1) == 2.0


class OneLease(RuleBasedStateMachine):
    """A client renews a lease over a slow network: its deadline never passes the real end.

    The store ends the lease TTL seconds after it processed the last renewal, exactly. Counting
    from the reply instead of from sending turns this red in five steps.
    """

    TTL = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.timing = Timing(self.TTL, 0.5)
        self.now = 0.0
        self.ends_at = 0.0
        self.deadline = NEVER
        self.sent: list[float] = []
        self.processed: list[float] = []

    @rule(seconds=st.floats(0.01, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def client_sends(self) -> None:
        self.sent.append(self.now)

    @precondition(lambda self: self.sent)
    @rule()
    def server_processes(self) -> None:
        sent_at = self.sent.pop(0)
        if self.now < self.ends_at or not self.ends_at:
            self.ends_at = self.now + self.TTL
            self.processed.append(sent_at)

    @precondition(lambda self: self.processed)
    @rule()
    def client_receives(self) -> None:
        self.deadline = max(self.deadline, self.timing.deadline(self.processed.pop(0)))

    @invariant()
    def the_deadline_is_before_the_end(self) -> None:
        assert self.deadline <= self.ends_at or self.deadline == NEVER


TestOneLease = OneLease.TestCase


@given(st.floats(0, 1e6), st.floats(2, 1e4))
def test_every_deadline_precedes_the_end_of_the_lease(sent_at: float, ttl: float) -> None:
    assert Timing.granted(ttl, None).deadline(sent_at) < sent_at + ttl
