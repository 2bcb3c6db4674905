"""Every error this package raises on purpose, in one tree.

::

    SidecarError
    ├── ConfigError            settings that cannot work; carries all problems at once
    ├── ElectionError
    │   ├── NotLeader          the call needs leadership, and this candidate has none
    │   ├── NoLeader           nobody stands in the election
    │   ├── SessionLost        the lease is gone; says why
    │   └── Refused            a command (resign, handover, pause) that nobody may carry out
    ├── CoordinatorError       what the store said, or did not say
    │   ├── Unavailable        no answer: the request may have taken effect, now or later
    │   ├── Rejected           a definite no: the request has not taken effect
    │   │   ├── LeaseNotFound
    │   │   ├── LeaseExists
    │   │   ├── NotAuthenticated
    │   │   ├── PermissionDenied
    │   │   └── StoreFull
    │   └── Compacted          the revision asked for is no longer kept
    └── ApiError               what the Kubernetes API server said, or did not say
        ├── NoAnswer           as `Unavailable`: the request may have taken effect, or may yet
        └── ApiRefused         it answered, but not with what was asked for; says with what

The difference between :class:`Unavailable` and :class:`Rejected` carries the safety of the
whole package: after a `Rejected` nothing happened, after an `Unavailable` anything may have.
Adapters map their library's errors to this tree, always with ``raise … from exc``.
"""

from __future__ import annotations

from collections.abc import Sequence


class SidecarError(Exception):
    """The root of this tree."""


class ConfigError(SidecarError):
    """Settings that cannot work.

    Attributes:
        problems: one sentence per problem, each naming the setting and what would be right.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ElectionError(SidecarError):
    """An election cannot do what was asked of it."""


class NotLeader(ElectionError):
    """The call needs leadership (or a place in the queue), and this candidate has none."""


class NoLeader(ElectionError):
    """Nobody stands in the election."""


class SessionLost(ElectionError):
    """The session's lease is gone.

    Attributes:
        reason: one word or phrase, the same that `Session.lost` yields.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"session lost: {reason}")


class Refused(ElectionError):
    """A command that nobody may carry out; the message says why and what would be right."""


class CoordinatorError(SidecarError):
    """The store failed, refused, or did not answer."""


class Unavailable(CoordinatorError):
    """No answer was heard. The request may have taken effect, may yet do so, or never will."""


class Underway(Unavailable):
    """A command that the leader has accepted, and that was not over in time: it drains yet."""


class Rejected(CoordinatorError):
    """The store said no: the request has not taken effect and never will."""


class LeaseNotFound(Rejected):
    """The lease has expired or was revoked."""


class LeaseExists(Rejected):
    """The lease id is taken; for a retried grant that means the first try took effect."""


class NotAuthenticated(Rejected):
    """The store does not know the user, or does not believe the password."""


class PermissionDenied(Rejected):
    """The user may not do this."""


class StoreFull(Rejected):
    """The store takes no writes for lack of space; deletes, reads and renewals still work."""


class Compacted(CoordinatorError):
    """The revision asked for has been compacted away.

    Attributes:
        revision: the oldest revision that is still kept.
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision
        super().__init__(f"compacted: the oldest revision kept is {revision}")


class ApiError(SidecarError):
    """The Kubernetes API server failed, refused, or did not answer."""


class NoAnswer(ApiError):
    """No answer was heard. The request may have taken effect, may yet do so, or never will."""


class ApiRefused(ApiError):
    """The answer has a status that is no success.

    Attributes:
        status: of HTTP.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(message)
