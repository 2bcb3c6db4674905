"""leader-sidecar: leader election in etcd for any program, as a container beside it.

The public names are loaded when they are first used, so that `import sidecar` costs nothing and a
program that only asks "am I the leader?" loads the standard library alone. The public libraries
are `sidecar.client`, `sidecar.election`, `sidecar.etcd` and `sidecar.errors`.
"""

from __future__ import annotations

# As typing's, without its import, which would be a fifth of what `leader-sidecar check` takes.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from sidecar.client import Leadership as Leadership
    from sidecar.election import Election as Election
    from sidecar.election import Observer as Observer
    from sidecar.election import Session as Session
    from sidecar.etcd import EtcdCoordinator as EtcdCoordinator

__version__ = "0.1.0"

_HOMES = {
    "Election": "sidecar.election",
    "EtcdCoordinator": "sidecar.etcd",
    "Leadership": "sidecar.client",
    "Observer": "sidecar.election",
    "Session": "sidecar.election",
}

__all__ = ["Election", "EtcdCoordinator", "Leadership", "Observer", "Session"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the package itself light

    return getattr(import_module(_HOMES[name]), name)
