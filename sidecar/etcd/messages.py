"""Between the store's vocabulary (`sidecar.core.store`) and etcd's messages (`rpc.proto`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from sidecar.core.store import (
    Batch,
    Delete,
    Event,
    Guard,
    Header,
    KeyValue,
    Op,
    Put,
    Range,
    Txn,
    TxnReply,
    Unchanged,
)
from sidecar.etcd import rpc_pb2 as pb


@dataclass(frozen=True, slots=True)
class PreparedTxn(Txn):
    """A transaction with its message, built before there is any hurry."""

    message: pb.TxnRequest | None = None

    @classmethod
    def of(cls, txn: Txn) -> Self:
        """Return `txn` with its message."""
        return cls(txn.guards, txn.then, txn.otherwise, txn_request(txn))


def header(message: pb.ResponseHeader) -> Header:
    """Return an answer's header."""
    return Header(message.revision, message.raft_term, message.cluster_id)


def key_value(message: pb.KeyValue) -> KeyValue:
    """Return one key."""
    return KeyValue(
        message.key, message.value, message.create_revision, message.mod_revision, message.lease
    )


def txn_request(txn: Txn) -> pb.TxnRequest:
    """Return a transaction as etcd takes it."""
    if isinstance(txn, PreparedTxn) and txn.message is not None:
        return txn.message
    return pb.TxnRequest(
        compare=[_compare(guard) for guard in txn.guards],
        success=[_op(op) for op in txn.then],
        failure=[_op(op) for op in txn.otherwise],
    )


def txn_reply(message: pb.TxnResponse) -> TxnReply:
    """Return etcd's answer to a transaction."""
    return TxnReply(
        header(message.header),
        message.succeeded,
        tuple(
            tuple(key_value(kv) for kv in response.response_range.kvs)
            for response in message.responses
            if response.WhichOneof("response") == "response_range"
        ),
    )


def range_request(
    key: bytes, end: bytes, *, limit: int, revision: int = 0, keys_only: bool = False
) -> pb.RangeRequest:
    """Return a read of [key, end)."""
    return pb.RangeRequest(
        key=key, range_end=end, limit=limit, revision=revision, keys_only=keys_only
    )


def watch_request(key: bytes, end: bytes, start_revision: int) -> pb.WatchRequest:
    """Return the request that opens a watch on [key, end)."""
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(key=key, range_end=end, start_revision=start_revision)
    )


def batch(message: pb.WatchResponse) -> Batch:
    """Return one answer of a watch; etcd never splits a revision over two of them.

    Its revision is the last event's, not the header's: while etcd catches up, several answers
    with older events carry the same header.
    """
    events = tuple(_events(message.events))
    return Batch(events[-1].kv.mod_revision if events else 0, events)


def _events(messages: Iterable[pb.Event]) -> Iterable[Event]:
    for message in messages:
        yield Event(key_value(message.kv), deleted=message.type == pb.Event.DELETE)


def _compare(guard: Guard | Unchanged) -> pb.Compare:
    equal = pb.Compare.EQUAL
    match guard:
        case Guard(key, revision):
            target = pb.Compare.CREATE
            return pb.Compare(result=equal, target=target, key=key, create_revision=revision)
        case Unchanged(key, revision):
            target = pb.Compare.MOD
            return pb.Compare(result=equal, target=target, key=key, mod_revision=revision)


def _op(op: Op) -> pb.RequestOp:
    match op:
        case Put(key, value, lease):
            return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))
        case Delete(key, end):
            delete = pb.DeleteRangeRequest(key=key, range_end=end or b"")
            return pb.RequestOp(request_delete_range=delete)
        case Range(key, end, limit):
            read = pb.RangeRequest(key=key, range_end=end or b"", limit=limit)
            return pb.RequestOp(request_range=read)
