"""gRPC, on the I/O engine that serves a small process best; nobody else of ours imports it.

gRPC's newer "event engine" hands each answer from thread to thread, five deep, and its pool of
threads wakes up between answers. Its older one reads the socket in the thread that waits for the
answer. Measured with grpcio 1.85: a handover 0.2 ms shorter, a sidecar at rest 0.04 % of a core
less. gRPC reads the choice once, from the environment, while it is imported; so it is set for just
that long, and neither a child process nor a program that imports gRPC first, or sets
`GRPC_EXPERIMENTS` itself, ever sees it.
"""

from __future__ import annotations

import os

__all__ = ["grpc"]

_VARIABLE = "GRPC_EXPERIMENTS"
_is_ours = _VARIABLE not in os.environ

if _is_ours:
    os.environ[_VARIABLE] = "-event_engine_client"
try:
    import grpc
finally:
    if _is_ours:
        del os.environ[_VARIABLE]
