"""A crawler on one machine: an etcd, Masters with a sidecar each, and Workers, all on loopback.

Each Master has a loopback address of its own, so that all use the same ports, as they would on
machines of their own; the forwarders need that.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crawler import keys
from sidecar import boottime
from sidecar.client import Leadership
from sidecar.core.store import KeyValue
from sidecar.demo.child import Child
from sidecar.demo.etcd import Etcd, find_etcd
from sidecar.demo.ports import ReservedPort
from sidecar.election import Coordinator
from sidecar.errors import ConfigError, SidecarError

T = TypeVar("T")

ELECTION = "/resources/election"
WORKERS = ("1", "2")
_LOOK_EVERY = 0.02  # seconds
_READ_WITHIN = 5.0


class PromiseBroken(SidecarError):
    """Something did not go as promised; the message says which promise."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that are the same for all Masters."""

    http: int
    grpc: int
    forwarded_http: int
    forwarded_grpc: int

    @classmethod
    def choose(cls, hosts: Sequence[str], preferred: Sequence[int]) -> Ports:
        """Take the preferred ports, or any free ones where they are taken on one of the hosts.

        Raises:
            ConfigError: this machine has no such addresses.
        """
        return cls(*(_free_port(hosts, port) for port in preferred))


class MasterPair:
    """One Master and its sidecar."""

    def __init__(self, number: int, ports: Ports, endpoint: str, ttl: float, folder: Path) -> None:
        self.number = number
        self.host = host_of(number)
        self.ports = ports
        self.id = f"master{number}-{self.host}:{ports.grpc}"
        self.http = f"http://{self.host}:{ports.http}"
        self.grpc = f"{self.host}:{ports.grpc}"
        status_dir = folder / f"status{number}"
        self.leadership = Leadership(status_dir)
        master = ["--id", str(number), "--http", f"{self.host}:{ports.http}", "--grpc", self.grpc]
        master += ["--status-dir", str(status_dir), "--etcd", endpoint, "--ttl", f"{ttl:g}"]
        program = _program("crawler.master", *master)
        # By `env`, since a child has our environment.
        self.master = Child(f"master{number}", ["env", f"POD_IP={self.host}", *program], folder)
        sidecar = ["--election", ELECTION, "--id", self.id, "--advertise", self.grpc]
        sidecar += ["--endpoints", endpoint, "--ttl", f"{ttl:g}", "--status-dir", str(status_dir)]
        sidecar += ["--http", f"{self.host}:0", *self._forward()]
        self.sidecar = Child(
            f"sidecar{number}", [sys.executable, "-m", "sidecar", "run", *sidecar], folder
        )

    @property
    def children(self) -> tuple[Child, Child]:
        """The sidecar and the program beside it."""
        return self.sidecar, self.master

    def start(self) -> None:
        """Start both."""
        for child in self.children:
            child.start()

    async def stop(self) -> None:
        """Tell both to end, at the same time, and wait until they have."""
        async with asyncio.TaskGroup() as group:
            for child in self.children:
                group.create_task(child.stop(), name=f"stop-{child.name}")

    def _forward(self) -> list[str]:
        ports = self.ports
        rules = {ports.forwarded_http: ports.http, ports.forwarded_grpc: ports.grpc}
        return ["--forward", ",".join(f"{self.host}:{a}={b}" for a, b in rules.items())]


class World:
    """All processes. Made by `world`, which also ends them."""

    def __init__(self, ttl: float, stack: ExitStack) -> None:
        self.ttl = ttl
        program = find_etcd()
        numbers = (2, 3)
        ports = Ports.choose([host_of(n) for n in numbers], (8081, 9091, 8080, 9090))
        client, peer = ReservedPort(), ReservedPort()
        stack.callback(client.close)
        stack.callback(peer.close)
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="leader-sidecar-crawler-"))
        self.folder = Path(name)
        self.etcd = Etcd(program, client, peer, self.folder)
        stack.callback(self.etcd.child.close)
        self.masters = {
            number: MasterPair(number, ports, self.etcd.endpoint, ttl, self.folder)
            for number in numbers
        }
        self.workers = [self._worker(id_) for id_ in WORKERS]
        for child in self._programs():
            stack.callback(child.close)

    async def until(self, condition: Callable[[], T], within: float, promise: str) -> T:
        """Wait until a condition holds and return its value.

        Raises:
            PromiseBroken: it did not within so many seconds, or a process ended by itself.
        """
        give_up_at = boottime.now() + within
        while not (value := condition()):
            self.check_processes()
            if boottime.now() > give_up_at:
                raise PromiseBroken(f"{promise}, but not within {within:g} s")
            await asyncio.sleep(_LOOK_EVERY)
        return value

    def check_processes(self) -> None:
        """Raise `PromiseBroken` when a process that is meant to run has ended."""
        for child in (self.etcd.child, *self._programs()):
            if child.is_wanted and not child.is_running:
                raise PromiseBroken(f"{child.name} ended by itself: {child.last_words()}")

    def leader(self) -> MasterPair | None:
        """Return the Master that may act now, None if there is none."""
        return next((one for one in self.masters.values() if one.leadership.is_leader()), None)

    def log(self, child: Child) -> str:
        """Return what a program has written."""
        path = self.folder / f"{child.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _programs(self) -> list[Child]:
        pairs = [child for master in self.masters.values() for child in master.children]
        return [*pairs, *self.workers]

    def _worker(self, id_: str) -> Child:
        arguments = ["--id", id_, "--etcd", self.etcd.endpoint, "--ttl", f"{self.ttl:g}"]
        arguments += ["--metrics", "127.0.0.1:0"]
        return Child(f"worker{id_}", _program("crawler.worker", *arguments), self.folder)


@contextmanager
def world(ttl: float) -> Iterator[World]:
    """Make a world, and leave no process and no file of it behind.

    The clean-up awaits nothing, so that no second signal can cut it short.

    Raises:
        ConfigError: there is no etcd, or no loopback addresses beyond 127.0.0.1.
    """
    with ExitStack() as stack:
        yield World(ttl, stack)


async def candidates(etcd: Coordinator) -> tuple[KeyValue, ...]:
    """Return the keys under the election, the oldest first."""
    start = f"{ELECTION}/".encode()
    reply = await etcd.read(start, keys.prefix_end(start), timeout=_READ_WITHIN)
    return tuple(sorted(reply.kvs, key=lambda kv: kv.create_revision))


def host_of(number: int) -> str:
    """Return a Master's address."""
    return f"127.0.0.{number}"


def _program(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"from {module} import main; main()", *arguments]


def _free_port(hosts: Sequence[str], preferred: int) -> int:
    for port in (preferred, 0):
        with ExitStack() as stack:
            for host in hosts:
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError as exc:
                    if preferred != port:
                        why = exc.strerror or str(exc)
                        raise ConfigError([f"cannot use {host}: {why}"]) from exc
                    break
                port = probe.getsockname()[1]  # noqa: PLW2901 - the same one on every host
            else:
                return port
    raise ConfigError([f"no port is free on all of {', '.join(hosts)}"])
