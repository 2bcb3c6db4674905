"""The rule that says who may act, and every step of a candidacy."""

import itertools

import pytest

from sidecar.core.candidacy import (
    TRANSITIONS,
    Candidacy,
    IllegalStep,
    Phase,
    Step,
    has_lost_key,
    holds_first,
    may_act,
)
from sidecar.core.keys import Layout
from sidecar.core.lease import NEVER
from sidecar.core.queue import QueueReplica
from sidecar.core.store import Header, KeyValue

LAYOUT = Layout("/e")
KEY, TOKEN = LAYOUT.candidate(1), 5
OTHER = LAYOUT.candidate(2)


def replica(*places: tuple[bytes, int], paused: bool = False, revision: int = 20) -> QueueReplica:
    queue = QueueReplica(LAYOUT)
    kvs = [KeyValue(key, b"x", token, token, 1) for key, token in places]
    if paused:
        kvs.append(KeyValue(LAYOUT.pause, b"", 9, 9))
    queue.replace(Header(revision, 1, 1), kvs)
    return queue


def standing(deadline: float = 100.0) -> Candidacy:
    return Candidacy().after(Step.CAMPAIGN_SENT).stood(KEY, TOKEN).proven(deadline)


def in_phase(phase: Phase) -> Candidacy:
    match phase:
        case Phase.OUT:
            return Candidacy()
        case Phase.CAMPAIGNING:
            return Candidacy().after(Step.CAMPAIGN_SENT)
        case Phase.STANDING:
            return standing()
        case Phase.STOPPING:
            return standing().after(Step.STEP_DOWN)
        case Phase.GIVING_UP:
            return standing().after(Step.GIVE_UP_SENT)


STEPS = [
    (Phase.OUT, Step.CAMPAIGN_SENT, Phase.CAMPAIGNING),
    (Phase.OUT, Step.LEASE_LOST, Phase.OUT),
    (Phase.CAMPAIGNING, Step.CAMPAIGN_SENT, Phase.CAMPAIGNING),
    (Phase.CAMPAIGNING, Step.STOOD, Phase.STANDING),
    (Phase.CAMPAIGNING, Step.REFUSED, Phase.OUT),
    (Phase.CAMPAIGNING, Step.LEASE_LOST, Phase.OUT),
    (Phase.STANDING, Step.STEP_DOWN, Phase.STOPPING),
    (Phase.STANDING, Step.GIVE_UP_SENT, Phase.GIVING_UP),
    (Phase.STANDING, Step.KEY_GONE, Phase.OUT),
    (Phase.STANDING, Step.LEASE_LOST, Phase.OUT),
    (Phase.STOPPING, Step.STEP_DOWN, Phase.STOPPING),
    (Phase.STOPPING, Step.GIVE_UP_SENT, Phase.GIVING_UP),
    (Phase.STOPPING, Step.KEY_GONE, Phase.OUT),
    (Phase.STOPPING, Step.LEASE_LOST, Phase.OUT),
    (Phase.GIVING_UP, Step.STEP_DOWN, Phase.GIVING_UP),
    (Phase.GIVING_UP, Step.GIVE_UP_SENT, Phase.GIVING_UP),
    (Phase.GIVING_UP, Step.KEY_GONE, Phase.OUT),
    (Phase.GIVING_UP, Step.LEASE_LOST, Phase.OUT),
]


@pytest.mark.parametrize(("phase", "step", "then"), STEPS)
def test_a_step_leads_where_the_table_says(phase: Phase, step: Step, then: Phase) -> None:
    before = in_phase(phase)
    after = before.stood(KEY, TOKEN) if step is Step.STOOD else before.after(step)
    assert after.phase is then
    assert TRANSITIONS[phase][step] is then


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        (phase, step)
        for phase, step in itertools.product(Phase, Step)
        if (phase, step) not in {(p, s) for p, s, _ in STEPS}
    ],
)
def test_every_other_step_is_refused(phase: Phase, step: Step) -> None:
    candidacy = in_phase(phase)
    take = (lambda: candidacy.stood(KEY, TOKEN)) if step is Step.STOOD else candidacy.after
    arguments = () if step is Step.STOOD else (step,)
    with pytest.raises(IllegalStep, match=f"{phase.value} cannot take the step {step.value}"):
        take(*arguments)


def test_standing_is_only_established_with_key_and_token() -> None:
    with pytest.raises(IllegalStep):
        in_phase(Phase.CAMPAIGNING).after(Step.STOOD)


def test_a_candidacy_that_just_stands_waits_for_its_first_proof() -> None:
    candidacy = Candidacy().after(Step.CAMPAIGN_SENT).stood(KEY, TOKEN)
    assert candidacy.deadline == NEVER
    assert not may_act(candidacy, replica((KEY, TOKEN)), now=0.0)


def test_the_first_in_the_queue_acts_until_its_deadline_and_not_at_it() -> None:
    queue = replica((KEY, TOKEN), (OTHER, 7))
    assert may_act(standing(100.0), queue, now=99.999)
    assert not may_act(standing(100.0), queue, now=100.0)


def test_an_older_proof_takes_nothing_back() -> None:
    assert standing(100.0).proven(90.0).deadline == 100.0


def test_who_is_not_first_does_not_act() -> None:
    assert not may_act(standing(), replica((OTHER, 3), (KEY, TOKEN)), now=0.0)
    assert not may_act(standing(), replica((OTHER, 3)), now=0.0)
    assert not may_act(standing(), replica(), now=0.0)


def test_the_same_key_with_another_create_revision_is_not_ours() -> None:
    assert not may_act(standing(), replica((KEY, TOKEN + 1)), now=0.0)


def test_nobody_acts_in_a_pause() -> None:
    assert not may_act(standing(), replica((KEY, TOKEN), paused=True), now=0.0)


def test_nobody_acts_with_a_token_below_the_largest_seen() -> None:
    queue = replica((KEY, TOKEN))
    assert may_act(standing(), queue, now=0.0, least_token=TOKEN)
    assert not may_act(standing(), queue, now=0.0, least_token=TOKEN + 1)


@pytest.mark.parametrize("phase", [Phase.OUT, Phase.CAMPAIGNING, Phase.STOPPING, Phase.GIVING_UP])
def test_only_standing_acts(phase: Phase) -> None:
    assert not may_act(in_phase(phase), replica((KEY, TOKEN)), now=0.0)


def test_what_was_given_up_never_acts_and_is_never_adopted_again() -> None:
    given_up = standing().after(Step.GIVE_UP_SENT).after(Step.KEY_GONE)
    assert not given_up.may_adopt(KEY, TOKEN)
    assert given_up.may_adopt(KEY, TOKEN + 1)
    with pytest.raises(IllegalStep):
        given_up.after(Step.CAMPAIGN_SENT).stood(KEY, TOKEN)
    again = given_up.after(Step.CAMPAIGN_SENT).stood(KEY, TOKEN + 9).proven(100.0)
    assert may_act(again, replica((KEY, TOKEN + 9)), now=0.0)


def test_a_removing_request_for_another_key_of_ours_counts_like_a_resign() -> None:
    cleaning = Candidacy().gives_up(KEY, TOKEN)
    assert not cleaning.may_adopt(KEY, TOKEN)
    assert cleaning.phase is Phase.OUT


def test_a_standing_key_that_is_being_removed_does_not_act() -> None:
    assert not may_act(standing().gives_up(KEY, TOKEN), replica((KEY, TOKEN)), now=0.0)


def test_leaving_forgets_the_deadline() -> None:
    assert standing().after(Step.KEY_GONE).deadline == NEVER
    assert standing().after(Step.LEASE_LOST).token == 0


def test_a_key_counts_as_lost_only_by_a_replica_that_is_no_older_than_it() -> None:
    assert not has_lost_key(standing(), replica(revision=TOKEN - 1))
    assert has_lost_key(standing(), replica(revision=TOKEN))
    assert has_lost_key(standing(), replica((KEY, TOKEN + 1)))
    assert not has_lost_key(standing(), replica((OTHER, 3), (KEY, TOKEN)))
    assert not has_lost_key(Candidacy(), replica())


def test_being_first_needs_a_token() -> None:
    assert not holds_first(Candidacy(), replica((KEY, TOKEN)))


def test_what_was_given_up_is_remembered_for_as_long_as_a_request_may_be_under_way() -> None:
    candidacy = Candidacy()
    for token in range(1, 1001):
        candidacy = candidacy.gives_up(KEY, token)
    assert not candidacy.may_adopt(KEY, 1000)
    assert len(candidacy.given_up) == 16
