import grpc
import pytest

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
from sidecar.etcd.errors import AuthIsOff, TokenNeeded, from_cancel_reason, from_status

C = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (C.NOT_FOUND, "etcdserver: requested lease not found", LeaseNotFound),
        (C.FAILED_PRECONDITION, "etcdserver: lease already exists", LeaseExists),
        (C.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", StoreFull),
        (C.UNAUTHENTICATED, "etcdserver: invalid auth token", TokenNeeded),
        (C.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", TokenNeeded),
        (C.INVALID_ARGUMENT, "etcdserver: user name is empty", TokenNeeded),
        (C.PERMISSION_DENIED, "etcdserver: permission denied", PermissionDenied),
        (C.INVALID_ARGUMENT, "etcdserver: authentication failed, invalid user", NotAuthenticated),
        (C.FAILED_PRECONDITION, "etcdserver: authentication is not enabled", AuthIsOff),
        (C.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", Rejected),
        (C.UNKNOWN, "etcdserver: not a primary lessor", Unavailable),
        (C.UNAVAILABLE, "etcdserver: no leader", Unavailable),
        (C.UNAVAILABLE, "etcdserver: leader changed", Unavailable),
        (C.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Unavailable),
        (C.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner", Unavailable),
        (C.UNKNOWN, "something new", Unavailable),
        (C.INTERNAL, None, Unavailable),
        (C.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", Compacted),
    ],
)
def test_what_etcd_says_is_known_or_counts_as_no_answer(
    code: grpc.StatusCode, details: str | None, kind: type[CoordinatorError]
) -> None:
    assert type(from_status(code, details)) is kind


def test_a_failed_handshake_names_the_flags() -> None:
    text = "failed to connect to all addresses; last error: UNKNOWN: Ssl handshake failed: x"
    error = from_status(C.UNAVAILABLE, text)
    assert str(error).startswith("TLS: Ssl handshake failed")
    assert "--cacert" in str(error)


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:2379: "
                "Failed to connect to remote host: Connection refused"
            ),
            "connection refused",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:2379: "
                "Failed to connect to remote host: connect: Connection refused (111)"
            ),
            "connection refused",
        ),
        (
            (
                "failed to connect to all addresses; last error: UNAVAILABLE: ipv4:10.0.0.7:2379: "
                "recvmsg:Connection reset by peer (104)"
            ),
            "connection reset by peer",
        ),
        ("Socket closed", "Socket closed"),
        ("etcdserver: no leader", "no leader"),
    ],
)
def test_what_grpc_puts_around_a_failed_connection_is_left_out(details: str, said: str) -> None:
    assert str(from_status(C.UNAVAILABLE, details)) == said


@pytest.mark.parametrize(
    ("reason", "compacted", "kind"),
    [
        ("", 7, Compacted),
        ("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token", 0, TokenNeeded),
        ("etcdserver: permission denied", 0, PermissionDenied),
        ("etcdserver: no leader", 0, Unavailable),
        ("", 0, Unavailable),
    ],
)
def test_a_cancelled_watch_says_why(
    reason: str, compacted: int, kind: type[CoordinatorError]
) -> None:
    assert type(from_cancel_reason(reason, compacted)) is kind
