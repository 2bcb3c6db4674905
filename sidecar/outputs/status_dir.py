"""The status directory: one sidecar's, locked for its whole life, written only by renaming.

Blocking calls throughout: on a bad disk any of them may hang, so callers run them in a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sidecar import boottime
from sidecar.errors import ConfigError
from sidecar.outputs.status import boot_id

_LOCK = ".lock"
_SESSION = "session.json"
_SEEN = "seen.json"
_RECORD_VERSION = 1
_RECORD_LIMIT = 64 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """What a restarted sidecar needs in order to resume its own term."""

    boot_id: str
    election: str
    id: str
    cluster_id: int
    lease: int
    key: str
    token: int
    ttl: float


@dataclass(frozen=True, slots=True)
class SeenToken:
    """The largest fencing token ever seen in an election, and the cluster it came from."""

    election: str
    token: int
    cluster_id: int


class StatusDirectory:
    """A directory that belongs to one sidecar.

    Raises:
        ConfigError: it is a file or a symlink, cannot be made, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open the directory; make it if there is none."""
        self.path = Path(path)
        self._lock_fd: int | None = None
        self._make()
        self._try_writing()

    def lock(self, *, within: float = 0.0) -> int:
        """Take the directory for the life of this process; return the lock's descriptor.

        The lock goes with the last process that has the descriptor open; it is passed on to a new
        program only where asked for. A second call does nothing.

        Args:
            within: seconds to wait for a holder that is about to end.

        Raises:
            ConfigError: another sidecar has it.
        """
        if self._lock_fd is not None:
            return self._lock_fd
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(self.path / _LOCK, flags, 0o644)
        except OSError as error:
            raise self._refusal(f"{_LOCK} in it cannot be opened: {error.strerror}") from error
        if not _flock(fd, within):
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            problem = (
                f"--status-dir: another sidecar (pid {holder}) uses {self.path}; "
                "give each sidecar a directory of its own"
            )
            raise ConfigError([problem])
        # Only for the message above: a full disk is no reason not to start.
        with contextlib.suppress(OSError):
            os.truncate(fd, 0)
            os.write(fd, f"{os.getpid()}\n".encode())
        self._lock_fd = fd
        return fd

    def claimed_until(self) -> float:
        """Return until when programs may believe that the status file here says leader.

        CLOCK_BOOTTIME seconds; minus infinity when nobody may. A restarted sidecar must not give
        its old key up before.
        """
        document, problem = boottime.read_status(str(self.path / boottime.STATUS))
        until = document.get("valid_until_boottime")
        if problem is None and document["role"] == "leader" and isinstance(until, int | float):
            return float(until)
        return float("-inf")

    def write_session(self, record: SessionRecord) -> None:
        """Keep what a resume needs (OSError: it could not be written)."""
        self._write_record(_SESSION, asdict(record))

    def read_session(self) -> SessionRecord | None:
        """Return what a predecessor of this boot kept; None for anything unreadable or foreign."""
        match self._read_record(_SESSION):
            case {
                "boot_id": str(boot),
                "election": str(election),
                "id": str(id_),
                "cluster_id": int(cluster_id),
                "lease": int(lease),
                "key": str(key),
                "token": int(token),
                "ttl": int() | float() as ttl,
            } if boot == boot_id():
                return SessionRecord(boot, election, id_, cluster_id, lease, key, token, float(ttl))
            case _:
                return None

    def remove_session(self) -> None:
        """Make a resume impossible.

        Raises:
            OSError: the record may still be there, so nothing that removes the key may be sent.
        """
        self.remove(_SESSION)

    def write_seen(self, seen: SeenToken) -> None:
        """Remember the largest token (OSError: it could not be written)."""
        self._write_record(_SEEN, asdict(seen))

    def read_seen(self, election: str) -> SeenToken | None:
        """Return the largest token seen in this election, or None."""
        match self._read_record(_SEEN):
            case {"election": str(name), "token": int(token), "cluster_id": int(cluster_id)}:
                return SeenToken(name, token, cluster_id) if name == election else None
            case _:
                return None

    def replace(
        self,
        name: str,
        content: bytes,
        *,
        mode: int = 0o644,
        is_meant: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Put a file in the place of another in one step; return whether it was done.

        Args:
            name: in this directory.
            content: all of it.
            mode: permissions, whatever the umask.
            is_meant: asked last, right before the file appears; False leaves the old one.

        Raises:
            OSError: the old file is still there.
        """
        # One name for each: there is one writer, and what a crash leaves is overwritten.
        temporary = self.path / f".{name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            with os.fdopen(os.open(temporary, flags, mode), "wb", buffering=0) as file:
                os.fchmod(file.fileno(), mode)
                _write_all(file.fileno(), content)
            if is_meant():
                temporary.replace(self.path / name)
                return True
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        temporary.unlink()
        return False

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error (OSError: it may still be there)."""
        (self.path / name).unlink(missing_ok=True)

    def touch(self, name: str) -> None:
        """Make an empty file; one that is there stays as it is (OSError: it could not be made)."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            fd = os.open(self.path / name, flags, 0o644)
            os.fchmod(fd, 0o644)
            os.close(fd)

    def _make(self) -> None:
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            try:
                self.path.mkdir(parents=True)
                self.path.chmod(0o755)
            except OSError as error:
                raise self._refusal(f"it cannot be made: {error.strerror}") from error
            return
        except OSError as error:
            raise self._refusal(f"it cannot be looked at: {error.strerror}") from error
        if stat.S_ISLNK(found.st_mode):
            raise self._refusal(f"it is a symlink to {self.path.readlink()}")
        if not stat.S_ISDIR(found.st_mode):
            raise self._refusal("it is no directory")

    def _try_writing(self) -> None:
        try:
            self.replace(".probe", b"")
            self.remove(".probe")
        except OSError as error:
            raise self._refusal(f"it cannot be written: {error.strerror}") from error

    def _refusal(self, why: str) -> ConfigError:
        problem = (
            f"--status-dir: {self.path} cannot be used, {why}; "
            "give a directory that this user may write, or one that can be made"
        )
        return ConfigError([problem])

    def _write_record(self, name: str, fields: dict[str, Any]) -> None:
        # Not waited for: a slow disk must not hold up a step-down, and a power cut ends the boot
        # that a session is of, and leaves of the largest token at the worst the one before.
        content = json.dumps({"v": _RECORD_VERSION, **fields}).encode()
        self.replace(name, content, mode=0o600)

    def _read_record(self, name: str) -> dict[str, Any] | None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            with os.fdopen(os.open(self.path / name, flags), "rb") as file:
                fields = json.loads(file.read(_RECORD_LIMIT))
        except (OSError, ValueError, RecursionError):
            return None
        is_ours = isinstance(fields, dict) and fields.get("v") == _RECORD_VERSION
        return fields if is_ours else None


def has_writer(path: str | os.PathLike[str]) -> bool:
    """Say whether a sidecar holds this status directory; True too where that cannot be told.

    For readers. They hold the lock for an instant at most; a sidecar that starts in it waits.
    """
    try:
        fd = os.open(Path(path) / _LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    # A disk that fills up takes a part first and refuses only the rest.
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]


def _flock(fd: int, within: float) -> bool:
    """Take the lock; where it is held, wait in a thread, since nothing else bounds the call."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        taken = threading.Event()

        def wait() -> None:
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
                taken.set()

        if within > 0:
            threading.Thread(target=wait, name="lock", daemon=True).start()
        return taken.wait(within)
    return True
