"""For programs beside the sidecar: am I the leader, with which fencing token?

    leadership = Leadership("/run/leader-sidecar")
    if term := leadership.term():
        write(record, fence=term.token)  # a lease alone is no fence: hand the token on

Every answer is a fresh read of the status file, compared with the clock afterwards; nothing is
cached that could go stale. What is missing, malformed, expired or of another boot counts as
follower and never raises. Standard library only; only waiting needs Linux's inotify, and looks
every 20 ms where that is not to be had. It does not talk to etcd: it knows what the sidecar wrote.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Self

from sidecar import boottime
from sidecar.directory_watch import DirectoryWatch

Role = Literal["leader", "follower"]


@dataclass(frozen=True, slots=True)
class LeaderInfo:
    """Who leads, as far as the sidecar knows; a follower's view may be old."""

    id: str
    address: str
    token: int
    key: str


@dataclass(frozen=True, slots=True)
class Term:
    """This candidate's own leadership, as of one read: the parts belong together."""

    token: int
    key: str
    deadline: float  # CLOCK_BOOTTIME, seconds


@dataclass(frozen=True, slots=True)
class Status:
    """What the status file says, judged at the moment of reading.

    `role` is leader only when that holds right now. `problem` says why the file was not believed
    (see `boottime.read_status`), None when it was.
    """

    role: Role = "follower"
    term: Term | None = None
    leader: LeaderInfo | None = None
    election: str | None = None
    id: str | None = None
    since: str | None = None
    transitions: int = 0
    candidates: tuple[str, ...] = ()
    reason: str | None = None
    link: str | None = None
    problem: str | None = None

    def differs(self, other: "Status") -> bool:
        """Say whether anything but the deadline, which moves with every renewal, is different."""
        return _timeless(self) != _timeless(other)


class Leadership:
    """The sidecar's word, read from its status directory.

    Safe to use from several threads and tasks at once, and after a fork. Asking holds nothing;
    waiting keeps three descriptors for the next wait, which `close`, the end of a `with` block or
    of the object itself give back.
    """

    def __init__(self, status_dir: str | os.PathLike[str] = boottime.DEFAULT_STATUS_DIR) -> None:
        """Look at a status directory, which need not exist yet."""
        self._directory = os.fspath(status_dir)
        self._path = f"{self._directory}/{boottime.STATUS}"
        self._seen = self.status()
        self._idle: list[DirectoryWatch] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what waiting has kept; the object can still be used."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def is_leader(self) -> bool:
        """Say whether this candidate leads now. Ask again at each use: it is one small read."""
        return self.status().role == "leader"

    def term(self) -> Term | None:
        """Return token, key and deadline from one read; None unless leader now."""
        return self.status().term

    @property
    def token(self) -> int | None:
        """The fencing token; None unless leader now."""
        term = self.term()
        return term.token if term else None

    @property
    def key(self) -> str | None:
        """The leader's key in etcd, whose create revision is the token; None unless leader now."""
        term = self.term()
        return term.key if term else None

    @property
    def leader(self) -> LeaderInfo | None:
        """Who leads as far as the sidecar knows: this candidate or another; None if unknown."""
        return self.status().leader

    def status(self) -> Status:
        """Read the status file and judge it."""
        return _status(*boottime.read_status(self._path))

    async def changed(self, since: Status | None = None) -> Status:
        """Wait until the status differs from `since` and return it; the latest one wins.

        Without `since`: from what the last `changed` or `wait` of this object returned, or from its
        making, so nothing is missed between two calls. Give it when several tasks wait on one
        object. A renewal, which moves only the deadline, is no change; the end of a lease is one,
        also when nobody is left to write it down.
        """
        import asyncio  # noqa: PLC0415 - programs without it should not pay for it

        known = since or self._seen
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._watching() as watch:
            if watch.fd is not None:
                loop.add_reader(watch.fd, lambda: wake.set() if watch.is_news() else None)
            try:
                while not (status := self._look(watch)).differs(known):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(watch.pause):
                            await wake.wait()
                    wake.clear()
            finally:
                if watch.fd is not None:
                    loop.remove_reader(watch.fd)
        self._seen = status
        return status

    def wait(
        self,
        role: Role | None = None,
        timeout: float | None = None,
        since: Status | None = None,
    ) -> Status:
        """Block until the role is `role`, at once if it is; without a role, until a change.

        Args:
            role: the role to wait for; None waits as `changed` does.
            timeout: seconds, suspended time included; None waits for ever.
            since: as for `changed`; without meaning when a role is given.

        Raises:
            TimeoutError: it has not come about in time.
            ValueError: there is no such role.
        """
        if role not in ("leader", "follower", None):
            raise ValueError(f"no role {role!r}: there are 'leader' and 'follower'")
        known = since or self._seen
        end = None if timeout is None else boottime.now() + timeout
        with self._watching() as watch:
            while True:
                status = self._look(watch)
                if status.differs(known) if role is None else status.role == role:
                    self._seen = status
                    return status
                left = watch.pause if end is None else end - boottime.now()
                if left <= 0:
                    raise TimeoutError(f"no {role or 'change'} within {timeout:g} s")
                watch.sleep(min(left, watch.pause))

    @contextlib.contextmanager
    def _watching(self) -> Iterator[DirectoryWatch]:
        # To close an inotify descriptor takes the kernel 7 ms (measured, the median on Linux 6.18),
        # too long for a program that has just become leader: one is kept.
        watch = None
        with contextlib.suppress(IndexError):
            watch = self._idle.pop()
        if watch is None or watch.pid != os.getpid():  # a forked one shares its events
            watch = DirectoryWatch(self._directory, boottime.STATUS)
        try:
            yield watch
        finally:
            watch.rest()
            if self._idle:
                watch.close()
            else:
                self._idle.append(watch)

    def _look(self, watch: DirectoryWatch) -> Status:
        watch.renew()  # before the read: what is written after it wakes us again
        status = self.status()
        watch.wake_at(status.term.deadline if status.term else None)
        return status


def _status(document: dict[str, object], problem: str | None) -> Status:
    if problem is not None:
        return Status(problem=problem)
    leads = document["role"] == "leader"
    candidates, transitions = document.get("candidates"), document.get("transitions")
    return Status(
        role="leader" if leads else "follower",
        term=_term(document) if leads else None,
        leader=_leader(document.get("leader")),
        election=_text(document, "election"),
        id=_text(document, "id"),
        since=_text(document, "since"),
        transitions=transitions if isinstance(transitions, int) else 0,
        candidates=tuple(map(str, candidates)) if isinstance(candidates, list) else (),
        reason=_text(document, "reason"),
        link=_text(document, "link"),
    )


def _timeless(status: Status) -> Status:
    return replace(status, term=status.term and replace(status.term, deadline=0.0))


def _term(document: dict[str, object]) -> Term | None:
    token, key = document["token"], document["key"]
    until = document["valid_until_boottime"]
    # read_status has checked them; this tells the type checker.
    if isinstance(token, int) and isinstance(key, str) and isinstance(until, int | float):
        return Term(token, key, float(until))
    return None


def _leader(value: object) -> LeaderInfo | None:
    if not isinstance(value, dict):
        return None
    match value:
        case {"id": str(name), "token": int(token), "key": str(key)}:
            address = value.get("address")
            return LeaderInfo(name, address if isinstance(address, str) else "", token, key)
    return None


def _text(document: dict[str, object], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None
