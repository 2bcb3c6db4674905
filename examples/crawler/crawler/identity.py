"""Who a Master is: `master2-192.168.0.107:9091`, in the election and in the registry."""

from __future__ import annotations

import os
from collections.abc import Mapping

from sidecar.addresses import own_address

_LOOPBACK = "127.0.0.1"


def host(environment: Mapping[str, str] = os.environ) -> str:
    """Return where others reach this machine: POD_IP, else its first IPv4 that is no loopback."""
    return environment.get("POD_IP") or own_address() or _LOOPBACK


def master_id(number: str, grpc_port: int, environment: Mapping[str, str] = os.environ) -> str:
    """Return a Master's id, with the address at which it answers gRPC calls."""
    where = host(environment)
    shown = f"[{where}]" if ":" in where else where
    return f"master{number}-{shown}:{grpc_port}"
