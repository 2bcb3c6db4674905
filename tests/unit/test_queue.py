from sidecar.core.codec import (
    Action,
    Answer,
    Proposal,
    Request,
    TermRecord,
    encode_answer,
    encode_proposal,
    encode_request,
    encode_term,
)
from sidecar.core.keys import Layout
from sidecar.core.queue import QueueReplica
from sidecar.core.store import Batch, Event, Header, KeyValue

LAYOUT = Layout("/e")


def candidate(lease: int, created: int, id_: str = "x", modified: int = 0) -> KeyValue:
    value = encode_proposal(Proposal(id_))
    return KeyValue(LAYOUT.candidate(lease), value, created, modified or created, lease)


def put(kv: KeyValue) -> Event:
    return Event(kv)


def gone(key: bytes, revision: int) -> Event:
    return Event(KeyValue(key, b"", 0, revision), deleted=True)


def other(key: bytes, value: bytes, revision: int, lease: int = 0) -> Event:
    return Event(KeyValue(key, value, revision, revision, lease))


def replica(*kvs: KeyValue, revision: int = 10) -> QueueReplica:
    queue = QueueReplica(LAYOUT)
    queue.replace(Header(revision, 1, 7), kvs)
    return queue


def tokens(queue: QueueReplica) -> list[int]:
    return [entry.token for entry in queue.entries]


def test_the_oldest_create_revision_is_first_whatever_the_order_of_keys() -> None:
    queue = replica(candidate(1, 9), candidate(3, 4), candidate(2, 6))
    assert tokens(queue) == [4, 6, 9]
    assert queue.first is not None
    assert queue.first.token == 4


def test_an_empty_queue_has_no_first() -> None:
    assert replica().first is None
    assert len(replica()) == 0
    assert not QueueReplica(LAYOUT).is_synced


def test_a_new_key_is_last_and_a_deleted_one_is_gone() -> None:
    queue = replica(candidate(1, 4))
    assert queue.apply(Batch(11, (put(candidate(2, 11)),)))
    assert tokens(queue) == [4, 11]
    assert queue.apply(Batch(12, (gone(LAYOUT.candidate(1), 12),)))
    assert tokens(queue) == [11]
    assert queue.revision == 12


def test_a_proclaimed_key_keeps_its_place_and_a_recreated_one_loses_it() -> None:
    queue = replica(candidate(1, 4), candidate(2, 6))
    queue.apply(Batch(11, (put(candidate(1, 4, "new", modified=11)),)))
    assert tokens(queue) == [4, 6]
    assert queue.entries[0].proposal.id == "new"
    queue.apply(Batch(12, (put(candidate(1, 12)),)))
    assert tokens(queue) == [6, 12]


def test_events_that_are_already_known_change_nothing() -> None:
    queue = replica(candidate(2, 6), revision=10)
    assert not queue.apply(Batch(9, (put(candidate(1, 4)), gone(LAYOUT.candidate(2), 9))))
    assert tokens(queue) == [6]
    assert queue.revision == 10
    assert not queue.apply(Batch(0))


def test_all_deletes_of_one_revision_count_before_there_is_a_new_first() -> None:
    queue = replica(candidate(1, 4), candidate(2, 6), candidate(3, 8))
    both = (gone(LAYOUT.candidate(1), 11), gone(LAYOUT.candidate(2), 11))
    queue.apply(Batch(11, both))
    assert tokens(queue) == [8]


def test_deleting_an_unknown_key_is_no_harm() -> None:
    queue = replica(candidate(1, 4))
    queue.apply(Batch(11, (gone(LAYOUT.candidate(9), 11),)))
    assert tokens(queue) == [4]
    assert queue.find(LAYOUT.candidate(9)) is None


def test_pause_pin_requests_answers_and_history_come_and_go() -> None:
    request, answer = Request(Action.RESIGN, 4, lease=5), Answer(accepted=True)
    record = TermRecord(4, "x", 1.0)
    queue = replica()
    events = (
        other(LAYOUT.pause, b"", 11),
        other(LAYOUT.pin, b"", 11),
        other(LAYOUT.request("r"), encode_request(request), 11, lease=5),
        other(LAYOUT.request("bad"), b"?", 11),
        other(LAYOUT.answer("r"), encode_answer(answer), 11),
        other(LAYOUT.term(4), encode_term(record), 11),
        other(LAYOUT.term(5), b"?", 11),
        other(b"/e.elsewhere/x", b"?", 11),
    )
    queue.apply(Batch(11, events))
    assert queue.is_paused
    assert queue.pin is not None
    assert queue.requests == {"r": request}
    assert queue.answers == {"r": answer}
    assert queue.history == {4: record}
    keys = [event.kv.key for event in events]
    queue.apply(Batch(12, tuple(gone(key, 12) for key in keys)))
    left = [queue.pause, queue.pin, *queue.requests, *queue.answers, *queue.history]
    assert left == [None, None]


def test_a_new_read_replaces_everything_also_by_a_smaller_revision() -> None:
    queue = replica(candidate(1, 4), revision=10)
    queue.apply(Batch(11, (other(LAYOUT.pause, b"", 11),)))
    queue.replace(Header(3, 2, 8), [candidate(2, 3), KeyValue(LAYOUT.pin, b"", 2, 2)])
    assert tokens(queue) == [3]
    assert not queue.is_paused
    assert queue.pin is not None
    assert (queue.revision, queue.cluster_id) == (3, 8)


def test_a_replica_agrees_with_what_single_keys_show() -> None:
    queue = replica(candidate(1, 4))
    key = LAYOUT.candidate(1)
    assert queue.agrees_with({LAYOUT.pause: None, key: candidate(1, 4)})
    assert queue.agrees_with({LAYOUT.candidate(2): None})
    assert not queue.agrees_with({key: None})
    assert not queue.agrees_with({key: candidate(1, 9)})
    assert not queue.agrees_with({LAYOUT.pause: KeyValue(LAYOUT.pause, b"", 3, 3)})
    assert not queue.agrees_with({LAYOUT.candidate(2): candidate(2, 5)})
