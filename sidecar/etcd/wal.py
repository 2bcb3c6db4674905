"""Whose data lies in a directory: etcd writes its ids at the beginning of each file of its log."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from sidecar.etcd import admin_pb2 as pb

_METADATA = 1  # the type of the record that holds the ids; the first record is a checksum
_LENGTH = struct.Struct("<Q")
_LENGTH_BITS = (1 << 56) - 1  # above them: how many bytes of padding follow
_PADDED = 1 << 63
_LARGEST = 4096  # bytes; both records are far smaller


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of a member and of its cluster."""

    member: int
    cluster: int


def has_data(data_dir: Path) -> bool:
    """Whether an etcd has begun to write there."""
    return any((data_dir / "member" / "wal").glob("*.wal"))


def identity(data_dir: Path) -> Identity | None:
    """Return whose data it is; None when the log does not tell (etcd itself will say why).

    Raises:
        OSError: the directory cannot be read.
    """
    for path in sorted((data_dir / "member" / "wal").glob("*.wal"), reverse=True):
        with path.open("rb") as file:
            found = _identity(file.read(_LARGEST))
        if found is not None:
            return found
    return None


def _identity(data: bytes) -> Identity | None:
    at = 0
    while at + _LENGTH.size <= len(data):
        (field,) = _LENGTH.unpack_from(data, at)
        length = field & _LENGTH_BITS
        padding = (field >> 56) & 0x7 if field & _PADDED else 0
        at += _LENGTH.size
        if not length or at + length > len(data):
            return None
        try:
            record = pb.WalRecord.FromString(data[at : at + length])
            if record.type == _METADATA:
                metadata = pb.WalMetadata.FromString(record.data)
                return Identity(metadata.NodeID, metadata.ClusterID)
        except DecodeError:
            return None
        at += length + padding
    return None
