"""etcd's errors, in one table: what each says about whether the request took effect.

Decided by message first, because codes changed between versions: etcd 3.5 and 3.6 disagree on
several. Whatever is not in the table counts as *no answer*, which is always the safe reading.
"""

from __future__ import annotations

import re

from sidecar.errors import (
    Compacted,
    CoordinatorError,
    LeaseExists,
    LeaseNotFound,
    NotAuthenticated,
    PermissionDenied,
    Rejected,
    StoreFull,
    Unavailable,
)
from sidecar.etcd.engine import grpc


class TokenNeeded(CoordinatorError):
    """The call's token is missing, expired or outdated; authenticate and call again."""


class AuthIsOff(NotAuthenticated):
    """A user and a password were given, and etcd knows no users: calls need no token."""


_BY_MESSAGE: tuple[tuple[str, type[CoordinatorError]], ...] = (
    ("requested lease not found", LeaseNotFound),
    ("lease already exists", LeaseExists),
    ("database space exceeded", StoreFull),
    ("invalid auth token", TokenNeeded),
    ("revision of auth store is old", TokenNeeded),
    ("user name is empty", TokenNeeded),
    ("permission denied", PermissionDenied),
    ("authentication failed", NotAuthenticated),
    ("authentication is not enabled", AuthIsOff),
    ("user name not found", NotAuthenticated),
    ("too large lease TTL", Rejected),
    ("request is too large", Rejected),
    ("duplicate key given", Rejected),
    ("too many operations", Rejected),
    ("key is not provided", Rejected),
    # A member that lost its leader while it renewed; sent as code Unknown (also by 3.6).
    ("not a primary lessor", Unavailable),
    ("no leader", Unavailable),
    ("leader changed", Unavailable),
    ("too many requests", Unavailable),
)

_BY_CODE: dict[grpc.StatusCode, type[CoordinatorError]] = {
    grpc.StatusCode.UNAUTHENTICATED: TokenNeeded,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}

# What gRPC puts around the system's words: "UNKNOWN: ipv4:127.0.0.1:2379: Failed to connect to
# remote host: connect: Connection refused (111)". The endpoint is told by our own messages.
_ALL_FAILED = "failed to connect to all addresses; last error: "
_TARGET = re.compile(r"^(?:[A-Z_]{5,}: )?(?:(?:ipv[46]|unix|dns):\S+: )?")
_STEP = re.compile(r"^(?:Failed to connect to remote host: )?(?:(?:connect|recvmsg|sendmsg): ?)?")
_NUMBER = re.compile(r" \(\d+\)$")

_COMPACTED = "required revision has been compacted"
_LONGEST_DETAIL = 300


def from_status(code: grpc.StatusCode, details: str | None) -> CoordinatorError:
    """Return our error for a gRPC status of etcd."""
    text = _readable(details or code.name)
    if _COMPACTED in text:
        return Compacted(0)
    for fragment, kind in _BY_MESSAGE:
        if fragment in text:
            return kind(text)
    return _BY_CODE.get(code, Unavailable)(text)


def _readable(details: str) -> str:
    text = details.removeprefix("etcdserver: ").removeprefix(_ALL_FAILED)
    text = _NUMBER.sub("", _STEP.sub("", _TARGET.sub("", text)))
    if text.startswith("Connection "):
        text = text[0].lower() + text[1:]
    if "handshake failed" in text.lower():
        text = f"TLS: {text}; check --cacert, --cert and --key"
    elif "unwrap failed" in text.lower():
        # With TLS 1.3 the server's refusal of a client comes after the handshake.
        text = f"TLS: {text}; does etcd want a client certificate? check --cert and --key"
    return text[:_LONGEST_DETAIL]


def from_rpc_error(exc: grpc.RpcError) -> CoordinatorError:
    """Return our error for whatever a call raised."""
    if isinstance(exc, grpc.aio.AioRpcError):
        return from_status(exc.code(), exc.details())
    return Unavailable(str(exc) or type(exc).__name__)


def from_cancel_reason(reason: str, compact_revision: int) -> CoordinatorError:
    """Return our error for a watch that etcd has cancelled."""
    if compact_revision:
        return Compacted(compact_revision)
    if re.search(r"invalid auth token|auth store is old|user name is empty", reason):
        return TokenNeeded(reason)
    if "permission denied" in reason:
        return PermissionDenied(reason)
    return Unavailable(reason or "the watch was cancelled")
