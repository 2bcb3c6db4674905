"""What a forwarding sidecar holds: with nobody, with many idle clients, with stalled ones."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

from benchmarks.processes import BenchError, Sidecar
from benchmarks.setting import Outcome, Setting
from benchmarks.table import Row
from benchmarks.usage import memory
from tests.support.procs import LOOPBACK, ReservedPort, wait_until

IDLE, STALLED = 1000, 100
_WITHIN = 60.0
_SETTLE = 0.5  # seconds in which nothing more was taken
_BLOCK = bytes(1 << 20)


def run(setting: Setting) -> Outcome:
    """Measure the memory of one sidecar."""
    with ExitStack() as stack:
        port = ReservedPort()
        stack.callback(port.close)
        # It accepts in the kernel alone: nobody ever takes a byte.
        sink = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=2 * IDLE))
        rule = f"{LOOPBACK}:{port.number}={sink.getsockname()[1]}"
        sidecar = Sidecar(
            setting.name("forward"),
            election=setting.name("/bench/forward"),
            endpoints=setting.endpoints,
            folder=setting.memory,
            options=[f"--forward={rule}", "--forward-drain=0s", "--forward-linger=0s"],
        )
        stack.enter_context(sidecar)
        wait_until(lambda: sidecar.status().get("role") == "leader", "the sidecar leads", _WITHIN)
        pid = sidecar.child.pid
        held = {"nobody": memory(pid).rss}
        clients = _connect(port.number, IDLE)
        taken = _accept(sink, IDLE)
        held["idle"] = memory(pid).rss
        _close(clients, taken)
        clients = _connect(port.number, STALLED)
        taken = _accept(sink, STALLED)
        sent = _fill(clients) / 1e6
        held["stalled"] = memory(pid).rss
        _close(clients, taken)
    row = Row(
        f"memory of a forwarding sidecar (RSS): nobody / {IDLE:,} idle / {STALLED} stalled clients",
        " / ".join(f"{each:.1f}" for each in held.values()) + " MB",
        at_least="",
    )
    return Outcome([row], {"rss_mb": held, "stalled_sent_mb": sent})


def _connect(port: int, count: int) -> list[socket.socket]:
    return [socket.create_connection((LOOPBACK, port)) for _ in range(count)]


def _accept(sink: socket.socket, count: int) -> list[socket.socket]:
    """Take the connections that the sidecar has made, which have all come then."""
    sink.settimeout(_WITHIN)
    try:
        return [sink.accept()[0] for _ in range(count)]
    except TimeoutError:
        raise BenchError("not all connections reached the program") from None


def _fill(clients: list[socket.socket]) -> int:
    """Send with each until nothing more is taken; return the bytes."""
    sent, last = 0, time.monotonic()
    for client in clients:
        client.setblocking(False)
    while time.monotonic() - last < _SETTLE:
        for client in clients:
            try:
                sent += client.send(_BLOCK)
                last = time.monotonic()
            except BlockingIOError:
                continue
    return sent


def _close(*groups: list[socket.socket]) -> None:
    for group in groups:
        for each in group:
            each.close()
