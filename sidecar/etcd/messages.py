"""Between the store's vocabulary (`sidecar.core.store`) and etcd's protobuf messages.

The messages are those of the package `etcd3`, of which nothing else is used. They need the
pure-Python protobuf, which has to be asked for before protobuf is imported for the first time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")

try:
    from etcd3 import etcdrpc as pb
except TypeError as exc:  # protobuf was imported before us, with its other implementation
    raise ImportError(
        "etcd's messages need PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION=python in the environment "
        "before google.protobuf is imported; set it, or import sidecar.etcd first"
    ) from exc

from sidecar.core.store import (
    Batch,
    Delete,
    Event,
    Header,
    KeyValue,
    Op,
    Put,
    Range,
    Txn,
    TxnReply,
)

__all__ = ["Message", "batch", "header", "key_value", "pb", "range_request", "txn_reply"]
__all__ += ["txn_request", "watch_request"]

Message = Any
"""A protobuf message; the generated classes carry no types."""


def header(message: Message) -> Header:
    """Return an answer's header."""
    return Header(message.revision, message.raft_term, message.cluster_id)


def key_value(message: Message) -> KeyValue:
    """Return one key."""
    return KeyValue(
        message.key, message.value, message.create_revision, message.mod_revision, message.lease
    )


def txn_request(txn: Txn) -> Message:
    """Return a transaction as etcd takes it."""
    return pb.TxnRequest(
        compare=[
            pb.Compare(
                result=pb.Compare.EQUAL,
                target=pb.Compare.CREATE,
                key=guard.key,
                create_revision=guard.create_revision,
            )
            for guard in txn.guards
        ],
        success=[_op(op) for op in txn.then],
        failure=[_op(op) for op in txn.otherwise],
    )


def txn_reply(message: Message) -> TxnReply:
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
) -> Message:
    """Return a read of [key, end)."""
    return pb.RangeRequest(
        key=key, range_end=end, limit=limit, revision=revision, keys_only=keys_only
    )


def watch_request(key: bytes, end: bytes, start_revision: int) -> Message:
    """Return the request that opens a watch on [key, end)."""
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(key=key, range_end=end, start_revision=start_revision)
    )


def batch(message: Message) -> Batch:
    """Return one answer of a watch; etcd never splits a revision over two of them.

    Its revision is the last event's, not the header's: while etcd catches up, several answers
    with older events carry the same header.
    """
    events = tuple(_events(message.events))
    return Batch(events[-1].kv.mod_revision if events else 0, events)


def _events(messages: Iterable[Message]) -> Iterable[Event]:
    for message in messages:
        yield Event(key_value(message.kv), deleted=message.type == message.DELETE)


def _op(op: Op) -> Message:
    match op:
        case Put(key, value, lease):
            return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease))
        case Delete(key, end):
            request = pb.DeleteRangeRequest(key=key, range_end=end or b"")
            return pb.RequestOp(request_delete_range=request)
        case Range(key, end, limit):
            request = pb.RangeRequest(key=key, range_end=end or b"", limit=limit)
            return pb.RequestOp(request_range=request)
