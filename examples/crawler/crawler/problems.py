"""What a caller is told when a call fails: a status, a sentence, and the field it is about.

gRPC and HTTP tell the same problem in their own ways; a Master that passed a call on tells what
the leader said.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import grpc

from sidecar.errors import Rejected, StoreFull

FIELD = "crawler-field"
UNTOUCHED = "crawler-untouched"
"""Trailing metadata: the field that is wrong; and that the call has certainly changed nothing."""

_HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 507,
}


class Problem(Exception):
    """Why a call failed.

    Attributes:
        field: of the request, where one is to blame.
        is_untouched: whether the call has certainly changed nothing, and never will.
        is_elsewhere: whether another Master, or this one a little later, may succeed.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        field: str = "",
        is_untouched: bool = True,
        is_elsewhere: bool = False,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.field = field
        self.is_untouched = is_untouched
        self.is_elsewhere = is_elsewhere

    @property
    def http_status(self) -> int:
        """The same in HTTP."""
        return _HTTP_STATUS.get(self.code, 500)

    @property
    def trailers(self) -> tuple[tuple[str, str], ...]:
        """Trailing metadata that tells the rest of it."""
        field = ((FIELD, self.field),) if self.field else ()
        return (*field, (UNTOUCHED, "1")) if self.is_untouched else field

    def doubted(self) -> Problem:
        """Return the same of a call that may have changed something before it came to this."""
        if not self.is_untouched:
            return self
        return Problem(
            self.code,
            f"{self.message}; an earlier try of the call may have taken effect",
            field=self.field,
            is_untouched=False,
            is_elsewhere=self.is_elsewhere,
        )


class Doubt:
    """What a call may have changed by now; a context manager whose problems tell it.

    Each step of a call knows only of itself. What the whole call fails with must not say that
    nothing was changed when an earlier step may have changed something.
    """

    def __init__(self) -> None:
        self._is_untouched = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, Problem) and exc.is_untouched and not self._is_untouched:
            raise exc.doubted() from exc

    def note(self, *, is_untouched: bool) -> None:
        """Take what a step has told of itself."""
        self._is_untouched &= is_untouched


def invalid(field: str, message: str) -> Problem:
    """Return the problem of a field that cannot be used as it is."""
    return Problem(grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {message}", field=field)


def exists(name: str) -> Problem:
    """Return the problem of a resource that is there with other content."""
    message = f"name: the resource {name!r} exists with other content; delete it first"
    return Problem(grpc.StatusCode.ALREADY_EXISTS, message, field="name")


def not_found(name: str) -> Problem:
    """Return the problem of a resource that is not there."""
    message = f"name: there is no resource {name!r}"
    return Problem(grpc.StatusCode.NOT_FOUND, message, field="name")


def not_the_leader(*, is_untouched: bool = True) -> Problem:
    """Return the problem of a Master that does not lead (any more)."""
    message = "not the leader"
    if not is_untouched:
        message += " any more; the call may have taken effect"
    return _elsewhere(message, is_untouched=is_untouched)


def no_leader() -> Problem:
    """Return the problem that there is nobody to serve the call."""
    return _elsewhere("there is no leader at the moment; try again later")


def unreachable(leader: str) -> Problem:
    """Return the problem of a leader that this Master has no connection to."""
    return _elsewhere(f"the leader {leader} cannot be reached")


def unanswered(what: str) -> Problem:
    """Return the problem of a call whose answer was not heard."""
    return _elsewhere(f"{what} did not answer; the call may have taken effect", is_untouched=False)


def overdue() -> Problem:
    """Return the problem of a call that was still being carried out at its deadline."""
    message = "the deadline has passed; the call may have taken effect"
    return Problem(grpc.StatusCode.DEADLINE_EXCEEDED, message, is_untouched=False)


def refused(error: Rejected, *, is_untouched: bool) -> Problem:
    """Return the problem of a write that etcd does not take, whoever asks."""
    is_full = isinstance(error, StoreFull)
    code = grpc.StatusCode.RESOURCE_EXHAUSTED if is_full else grpc.StatusCode.INTERNAL
    problem = Problem(code, f"etcd refuses to write: {error}")
    return problem if is_untouched else problem.doubted()


def from_rpc(error: grpc.aio.AioRpcError, leader: str) -> Problem:
    """Return what the leader said, or that its answer was not heard."""
    trailers: Any = error.trailing_metadata() or ()
    said = {str(key): str(value) for key, value in trailers}
    # So gRPC ends calls that come while a server stops. What we give up ourselves is no such error.
    is_cut_off = error.code() is grpc.StatusCode.CANCELLED
    is_elsewhere = error.code() is grpc.StatusCode.UNAVAILABLE
    if is_cut_off or (is_elsewhere and UNTOUCHED not in said):
        return unanswered(f"the leader {leader}")
    return Problem(
        error.code(),
        error.details() or "",
        field=said.get(FIELD, ""),
        is_untouched=UNTOUCHED in said,
        is_elsewhere=is_elsewhere,
    )


def _elsewhere(message: str, *, is_untouched: bool = True) -> Problem:
    return Problem(
        grpc.StatusCode.UNAVAILABLE, message, is_untouched=is_untouched, is_elsewhere=True
    )
