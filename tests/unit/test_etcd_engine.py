"""The choice of gRPC's I/O engine: made for this process alone, and only where nobody else did."""

import os
import subprocess
import sys

import pytest

from tests.support.procs import free_port

PROGRAM = """
import asyncio, os, sys
from sidecar.etcd.engine import grpc

async def refused():
    async with grpc.aio.insecure_channel(f"ipv4:127.0.0.1:{sys.argv[1]}") as channel:
        try:
            await channel.unary_unary("/a/b")(b"")
        except grpc.aio.AioRpcError as error:
            return error.details()

print(os.environ.get("GRPC_EXPERIMENTS"))
print(asyncio.run(refused()))
"""


@pytest.mark.parametrize(
    ("chosen", "left", "said"),
    # Only the older engine tells the number of the error.
    [(None, "None", "(111)"), ("", "", "Connection refused")],
)
def test_the_engine_is_ours_unless_the_environment_says_otherwise(
    chosen: str | None, left: str, said: str
) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_EXPERIMENTS"}
    if chosen is not None:
        environment["GRPC_EXPERIMENTS"] = chosen
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(free_port())],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    variable, details = done.stdout.splitlines()
    assert variable == left
    assert details.endswith(said)
    assert done.stderr == "", "a version of gRPC that does not know the experiment says so"
