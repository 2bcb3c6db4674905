"""The etcd v3 adapter: `EtcdCoordinator` implements `sidecar.election.ports.Coordinator`.

It knows endpoints, failover, deadlines, authentication, TLS and etcd's error messages, and
nothing of elections. Public: `EtcdCoordinator`, `Credentials`, `parse_endpoints`. The names are
loaded when first used, since the gRPC library behind them costs 20 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar.etcd.coordinator import EtcdCoordinator as EtcdCoordinator
    from sidecar.etcd.credentials import Credentials as Credentials
    from sidecar.etcd.endpoints import Endpoint as Endpoint
    from sidecar.etcd.endpoints import parse_endpoints as parse_endpoints

_HOMES = {
    "Credentials": "sidecar.etcd.credentials",
    "Endpoint": "sidecar.etcd.endpoints",
    "EtcdCoordinator": "sidecar.etcd.coordinator",
    "parse_endpoints": "sidecar.etcd.endpoints",
}

__all__ = ["Credentials", "Endpoint", "EtcdCoordinator", "parse_endpoints"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - keeps the package itself light

    return getattr(import_module(_HOMES[name]), name)
