"""Whether a member may use its volume: some storage ignores the `fsGroup` that a pod asks for.

Looked at before anything is decided, since a directory that cannot be read looks like an empty one.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_INSIDE = ("member", "member/wal", "member/snap")


def problem(data_dir: Path) -> str | None:
    """Say why etcd cannot keep its data there and what would be right, or None.

    What is no matter of permissions (a full or a broken disk) is left for etcd to tell.

    Args:
        data_dir: etcd's, which it makes itself in the volume's own directory.
    """
    folder = data_dir.parent
    try:
        for folder in _folders(data_dir):
            list(folder.iterdir())
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as exc:
        return _told(folder, exc) if exc.errno in _REFUSED else None
    return None


def _folders(data_dir: Path) -> Iterator[Path]:
    """Yield where etcd writes, of what is there; the outer before what lies in it."""
    if not data_dir.exists():
        yield data_dir.parent
        return
    yield data_dir
    yield from (data_dir / name for name in _INSIDE if (data_dir / name).exists())


def _told(folder: Path, exc: OSError) -> str:
    if exc.errno == errno.EROFS:
        return f"{folder} is mounted read-only; etcd needs a volume that it can write to"
    groups = ", ".join(str(group) for group in sorted({os.getegid(), *os.getgroups()}))
    return (
        f"{folder} cannot be read and written by user {os.geteuid()} of the groups {groups} "
        f"({_owner(folder)}): the storage ignores the pod's fsGroup, or the data was written by "
        "another user. Take a StorageClass whose driver applies fsGroup, or give the volume's "
        "directory with all that is in it to one of these groups, with the right to write"
    )


def _owner(folder: Path) -> str:
    try:
        found = folder.stat()
    except OSError as exc:
        return exc.strerror or "no permission"
    mode = stat.S_IMODE(found.st_mode)
    return f"it is of user {found.st_uid} and group {found.st_gid}, mode {mode:04o}"
