"""The operations of a Master, and what comes with a call of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from crawler import crawler_pb2 as pb
from crawler.leader import Leader

SERVICE: str = pb.DESCRIPTOR.services_by_name["CrawlerMaster"].full_name
FORWARDED_BY = "crawler-forwarded-by"
"""Metadata of a call that was passed on: the id of the Master that did."""
SERVED_BY = "crawler-served-by"
"""Trailing metadata, and a header in HTTP: the id of the Master that carried it out."""
PATIENCE = 5.0
"""Seconds that a call may take which brings no deadline."""

_OWN_TO_A_HOP = ("grpc-", ":", "user-agent", "content-type", "te", "crawler-")

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One call that a Master answers.

    Attributes:
        is_idempotent: whether it may be sent again when its answer was not heard.
    """

    name: str
    request: type[Message]
    reply: type[Message]
    perform: Callable[[Leader, Any, float], Awaitable[Message]]
    is_idempotent: bool = True

    @property
    def method(self) -> str:
        """Its path in gRPC."""
        return f"/{SERVICE}/{self.name}"


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("AddResource", pb.ResourceSpec, pb.NodeSpec, Leader.add),
        Operation(
            "DeleteResource",
            pb.DeleteResourceRequest,
            pb.DeleteResourceReply,
            Leader.delete,
            is_idempotent=False,
        ),
        Operation("GetResource", pb.GetResourceRequest, pb.Resource, Leader.get),
        Operation("ListResources", pb.ListResourcesRequest, pb.ListResourcesReply, Leader.list),
        Operation("ListNodes", pb.ListNodesRequest, pb.ListNodesReply, Leader.nodes),
    )
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came in.

    Attributes:
        deadline: of the event loop's clock.
        metadata: of the caller, which goes on with the call.
        is_forwarded: whether another Master has passed it on.
    """

    operation: Operation
    request: Message
    deadline: float
    metadata: Metadata = ()
    is_forwarded: bool = False

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - asyncio.get_running_loop().time()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the id of the Master that gave it."""

    message: Message
    served_by: str
    is_forwarded: bool = False


def to_pass_on(metadata: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """Return the metadata that belongs to the caller, not to one hop."""
    return tuple((k, v) for k, v in metadata if not k.lower().startswith(_OWN_TO_A_HOP))
