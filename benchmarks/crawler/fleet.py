"""Masters with a sidecar each, on loopback addresses of their own, and Workers.

Two Masters contend for the leadership. A third one's sidecar only observes, so that its Master
always follows: through that Master, or its sidecar's forwarder, goes the load.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from crawler import keys
from crawler.local_world import ELECTION, Ports, host_of

from sidecar.client import Leadership
from sidecar.election import Commands
from sidecar.etcd import EtcdCoordinator
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child

CONTENDERS, FOLLOWER = (2, 3), 4

T = TypeVar("T")

_SLOW_MACHINE = 60.0
_LOOK_EVERY = 0.02
_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Pair:
    """A Master and its sidecar, which live and die together."""

    def __init__(
        self,
        number: int,
        ports: Ports,
        endpoints: str,
        folder: Path,
        *,
        ttl: float,
        sidecar: Sequence[str],
    ) -> None:
        host = host_of(number)
        self.id = f"master{number}-{host}:{ports.grpc}"
        self.http = f"http://{host}:{ports.http}"
        self.forwarded = f"http://{host}:{ports.forwarded_http}"
        self.status_dir = folder / f"status{number}"
        self.leadership = Leadership(self.status_dir)
        forward = f"{host}:{ports.forwarded_http}={ports.http}"
        command = [sys.executable, "-m", "sidecar", "run", "--election", ELECTION, "--id", self.id]
        command += ["--advertise", f"{host}:{ports.grpc}", "--endpoints", endpoints]
        command += ["--ttl", f"{ttl:g}", "--status-dir", str(self.status_dir)]
        command += ["--http", f"{host}:0", "--forward", forward]
        self.sidecar = Child([*command, *sidecar], name=f"sidecar{number}", folder=folder)
        program = [sys.executable, "-c", "from crawler.master import main; main()"]
        program += ["--id", str(number), "--http", f"{host}:{ports.http}", "--etcd", endpoints]
        program += ["--grpc", f"{host}:{ports.grpc}", "--status-dir", str(self.status_dir)]
        self.master = Child(
            [*program, "--ttl", f"{ttl:g}"],
            name=f"master{number}",
            folder=folder,
            env={"POD_IP": host},
        )

    def start(self) -> None:
        """Start both."""
        self.sidecar.start()
        self.master.start()

    def kill(self) -> None:
        """Kill both at once, by SIGKILL."""
        for child in (self.sidecar, self.master):
            child.signal(signal.SIGKILL)
        self.close()

    def freeze(self) -> None:
        """Stop both as they are, the sidecar first."""
        self.sidecar.pause()
        self.master.pause()

    def thaw(self) -> None:
        """Let both go on, the Master first: it has to find out for itself."""
        self.master.resume()
        self.sidecar.resume()

    def close(self) -> None:
        """End both without ceremony."""
        self.sidecar.close()
        self.master.close()

    def status(self) -> dict[str, Any]:
        """Return what its status file says; {} while there is none."""
        try:
            found: dict[str, Any] = json.loads((self.status_dir / "status.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found

    def is_ready(self) -> bool:
        """Whether its Master answers calls."""
        try:
            with _without_proxy.open(f"{self.http}/readyz", timeout=5) as answer:
                return int(answer.status) == 200
        except (OSError, urllib.error.URLError):
            return False


class Fleet:
    """Everybody; a context manager that ends them all.

    Args:
        workers: how many, which fetch nothing.
        sidecar: more options for the contending sidecars.
    """

    def __init__(
        self,
        cluster: EtcdCluster,
        folder: Path,
        *,
        ttl: float,
        workers: int = 2,
        sidecar: Sequence[str] = (),
    ) -> None:
        self.endpoint = cluster.endpoints[0]
        self.ttl = ttl
        endpoints = ",".join(cluster.endpoints)
        numbers = (*CONTENDERS, FOLLOWER)
        ports = Ports.choose([host_of(number) for number in numbers], (0, 0, 0, 0))
        self.pairs = {
            number: Pair(
                number,
                ports,
                endpoints,
                folder,
                ttl=ttl,
                # Priority 0 only observes.
                sidecar=sidecar if number in CONTENDERS else (*sidecar, "--priority=0"),
            )
            for number in numbers
        }
        self.workers = [_worker(number, endpoints, ttl, folder) for number in range(workers)]
        self._stack = ExitStack()
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for pair in self.pairs.values():
                stack.callback(pair.close)
                pair.start()
            for worker in self.workers:
                stack.enter_context(worker)
            for pair in self.pairs.values():
                _eventually(pair.is_ready, f"{pair.id} is ready")
            self.wait_for_line()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._runner.close()

    @property
    def follower(self) -> Pair:
        """The Master that always follows."""
        return self.pairs[FOLLOWER]

    def leader(self, after: int = 0) -> Pair:
        """Wait for a leader whose token is larger than `after`."""

        def found() -> list[Pair]:
            return [one for one in self.pairs.values() if (one.leadership.token or 0) > after]

        return _eventually(found, "a leader")[0]

    def wait_for_line(self) -> None:
        """Wait until one leads and the other stands behind it."""
        wanted = {self.pairs[number].id for number in CONTENDERS}
        _eventually(
            lambda: set(self.leader().status().get("candidates", ())) == wanted,
            "both contenders stand",
        )

    def handover(self) -> None:
        """Have the leader hand over to the next in the queue; return when that leads."""

        async def ask(etcd: EtcdCoordinator) -> None:
            await Commands(etcd, ELECTION, within=_SLOW_MACHINE).handover()

        self.ask(ask)

    def ask(self, work: Callable[[EtcdCoordinator], Coroutine[Any, Any, T]]) -> T:
        """Have something done in etcd."""

        async def connected() -> T:
            async with EtcdCoordinator(self.endpoint) as etcd:
                return await work(etcd)

        # One loop for all of it: what gRPC leaves running in a loop outlives the loop.
        return self._runner.run(connected())


def _eventually(condition: Callable[[], T], what: str) -> T:
    """Return the first true value; looks seldom enough not to slow down what is measured."""
    deadline = time.monotonic() + _SLOW_MACHINE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {_SLOW_MACHINE:g} s: {what}")
        time.sleep(_LOOK_EVERY)
    return value


def wipe(cluster: EtcdCluster) -> None:
    """Forget every resource, between two runs of the load."""
    cluster.etcdctl("del", "--prefix", keys.ROOT)


def _worker(number: int, endpoints: str, ttl: float, folder: Path) -> Child:
    command = [sys.executable, "-c", "from crawler.worker import main; main()"]
    command += ["--id", str(number), "--etcd", endpoints, "--metrics", f"{LOOPBACK}:0"]
    command += ["--ttl", f"{ttl:g}", "--no-fetch"]
    return Child(command, name=f"worker{number}", folder=folder)
