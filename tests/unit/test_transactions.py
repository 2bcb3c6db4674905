from sidecar.core import transactions
from sidecar.core.codec import Action, Answer, Proposal, Request, TermRecord, decode_term
from sidecar.core.keys import Layout
from sidecar.core.queue import HISTORY_LIMIT, Entry
from sidecar.core.store import Delete, Guard, Put, Range, Txn

LAYOUT = Layout("/e")
OWN = Entry(LAYOUT.candidate(1), 5, 1, Proposal("a"))
WAITERS = (Entry(LAYOUT.candidate(2), 6, 2, Proposal("b")),)
TARGET = Entry(LAYOUT.candidate(3), 7, 3, Proposal("c"))


def test_a_campaign_creates_the_key_only_where_there_is_none_and_no_pause() -> None:
    txn = transactions.campaign(LAYOUT, OWN.key, b"v", 1)
    assert txn.guards == (Guard(OWN.key, 0), Guard(LAYOUT.pause, 0))
    assert txn.then == (Put(OWN.key, b"v", 1),)
    assert txn.otherwise == (Range(OWN.key), Range(LAYOUT.pause))


def test_whatever_removes_or_changes_a_key_names_its_create_revision() -> None:
    assert transactions.give_up(OWN.key, 5) == Txn((Guard(OWN.key, 5),), (Delete(OWN.key),))
    assert transactions.proclaim(OWN.key, 5, b"w", 1) == Txn(
        (Guard(OWN.key, 5),), (Put(OWN.key, b"w", 1),)
    )


def test_moving_waiters_requires_the_movers_own_key() -> None:
    txn = transactions.move(OWN, WAITERS)
    assert txn.guards == (Guard(OWN.key, 5), Guard(WAITERS[0].key, 6))
    assert txn.then == (Delete(WAITERS[0].key),)


def test_a_handover_requires_the_target_and_takes_the_rest_with_it() -> None:
    pin = transactions.pin(LAYOUT, TARGET)
    txn = transactions.hand_over(OWN, WAITERS, TARGET, (pin,))
    assert Guard(TARGET.key, 7) in txn.guards
    assert txn.then == (Delete(OWN.key), Delete(WAITERS[0].key), pin)
    assert pin == Put(LAYOUT.pin, b"", 3)


def test_the_largest_handover_stays_within_etcds_limit_of_128_operations() -> None:
    many = tuple(Entry(LAYOUT.candidate(n), n, n, Proposal("x")) for n in range(10, 70))
    record = TermRecord(5, "a", 1.0)
    epilogue = (
        transactions.ended_term(LAYOUT, record, until=2.0, reason="handover"),
        transactions.pin(LAYOUT, TARGET),
    )
    txn = transactions.hand_over(OWN, many, TARGET, epilogue)
    assert max(len(txn.guards), len(txn.then)) <= 128


def test_a_term_is_written_under_its_own_key_and_old_ones_are_trimmed() -> None:
    record = TermRecord(500, "a", 1.0)
    known = tuple(range(1, HISTORY_LIMIT + 5))
    txn = transactions.begun_term(LAYOUT, OWN.key, record, known)
    assert txn.guards == (Guard(OWN.key, 500),)
    put, trim = txn.then
    assert isinstance(put, Put)
    assert decode_term(put.value) == record
    assert trim == Delete(LAYOUT.term(0), LAYOUT.term(6))  # 99 of the known ones and the new one


def test_a_term_that_ended_says_when_and_how() -> None:
    put = transactions.ended_term(LAYOUT, TermRecord(5, "a", 1.0), until=2.0, reason="resigned")
    assert put.key == LAYOUT.term(5)
    assert decode_term(put.value) == TermRecord(5, "a", 1.0, 2.0, "resigned")


def test_a_request_requires_the_term_it_is_for_and_goes_with_its_asker() -> None:
    request = Request(Action.RESIGN, 5, lease=9)
    txn = transactions.ask(LAYOUT, "ab", OWN.key, request)
    assert txn.guards == (Guard(OWN.key, 5),)
    assert isinstance(txn.then[0], Put)
    assert (txn.then[0].key, txn.then[0].lease) == (LAYOUT.request("ab"), 9)
    answer = transactions.answer(LAYOUT, "ab", 9, Answer(accepted=True)).then[0]
    assert isinstance(answer, Put)
    assert (answer.key, answer.lease) == (LAYOUT.answer("ab"), 9)


def test_a_proof_reads_pause_the_own_key_and_whoever_is_believed_to_be_first() -> None:
    assert transactions.proof_keys(LAYOUT, None, None) == (LAYOUT.pause,)
    assert transactions.proof_keys(LAYOUT, b"o", b"o") == (LAYOUT.pause, b"o")
    assert transactions.proof_keys(LAYOUT, b"o", b"f") == (LAYOUT.pause, b"o", b"f")
