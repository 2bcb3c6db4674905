"""Masters with a sidecar each, and Workers, as whole processes on a real etcd."""

import base64
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from crawler import keys
from crawler.records import Node, Resource

from sidecar.client import Leadership
from tests.integration.support import LONG, PROGRAM
from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until

ELECTION = "/resources/election"
TTL = 3


class Master:
    """One Master and its sidecar, which are frozen and killed together."""

    def __init__(
        self,
        number: int,
        etcd: str,
        folder: Path,
        sidecar: Sequence[object] = (),
        *,
        bridge: str | None = None,
    ) -> None:
        """Describe both; `bridge` is another way to the store, for the Master alone."""
        self._http = ReservedPort()
        self._grpc = ReservedPort()
        self.grpc_port = self._grpc.number
        self.id = f"master{number}-{LOOPBACK}:{self.grpc_port}"
        self.url = f"http://{LOOPBACK}:{self._http.number}"
        self.target = f"{LOOPBACK}:{self.grpc_port}"
        status_dir = folder / f"master{number}.status"
        self.leadership = Leadership(status_dir)
        env = {"POD_IP": LOOPBACK}
        self.sidecar = Child(
            [
                *PROGRAM,
                "run",
                f"--election={ELECTION}",
                f"--id={self.id}",
                f"--advertise={self.target}",
                f"--endpoints={etcd}",
                f"--status-dir={status_dir}",
                f"--http={LOOPBACK}:0",
                f"--ttl={TTL}",
                *map(str, sidecar),
            ],
            name=f"sidecar{number}",
            folder=folder,
        )
        self.master = Child(
            [
                sys.executable,
                "-c",
                "from crawler.master import main; main()",
                f"--id={number}",
                f"--http={LOOPBACK}:{self._http.number}",
                f"--grpc={LOOPBACK}:{self.grpc_port}",
                f"--status-dir={status_dir}",
                f"--etcd={bridge or etcd}",
                f"--ttl={TTL}",
                "--print-leader-every=500ms",
            ],
            name=f"master{number}",
            folder=folder,
            env=env,
        )

    @property
    def children(self) -> tuple[Child, Child]:
        """The program and its sidecar."""
        return self.master, self.sidecar

    def start(self) -> Self:
        """Start both, again where they have ended."""
        for child in (self.sidecar, self.master):
            if not child.running:
                child.start()
        return self

    def close(self) -> None:
        """End both."""
        for child in self.children:
            child.close()
        self._http.close()
        self._grpc.close()

    def kill(self) -> None:
        """Kill both without warning."""
        for child in self.children:
            child.kill()

    def freeze(self) -> None:
        """Stop both as they are."""
        for child in self.children:
            child.pause()

    def thaw(self) -> None:
        """Let both go on."""
        for child in self.children:
            child.resume()

    def is_ready(self) -> bool:
        """Whether it answers calls."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=LONG).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self) -> Self:
        """Wait until it answers calls."""
        wait_until(self.is_ready, f"{self.id} is ready\n{self.master.tail()}", LONG)
        return self

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask over HTTP."""
        return httpx.request(method, f"{self.url}{path}", timeout=LONG, **more)

    def add(self, name: str, **more: object) -> httpx.Response:
        """Add a resource over HTTP."""
        document = {"name": name, "urls": [f"http://{name}.example/"], **more}
        return self.request("POST", "/resources", json=document)


@dataclass(frozen=True, slots=True)
class Worker:
    """A Worker that fetches nothing."""

    id: str
    child: Child


class Crew:
    """Everybody; a context manager that ends them all and fails on a traceback in a log."""

    def __init__(self, cluster: EtcdCluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.masters: list[Master] = []
        self.workers: dict[str, Worker] = {}
        self._etcd = ",".join(cluster.endpoints)

    def __enter__(self) -> Self:
        for prefix in (keys.ROOT, keys.REGISTRY, ELECTION):  # whoever left them is dead by now
            self.cluster.etcdctl("del", "--prefix", prefix)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        children = [child for master in self.masters for child in master.children]
        children += [worker.child for worker in self.workers.values()]
        for master in self.masters:
            master.close()
        for child in children:
            child.close()
        if error is None:
            wrong = [child.tail() for child in children if "Traceback" in child.text("err")]
            assert not wrong, "\n".join(wrong)

    def start(
        self, *numbers: int, sidecar: Sequence[object] = (), bridge: str | None = None
    ) -> list[Master]:
        """Start Masters, the first of which leads; for `bridge` see `Master`."""
        made = [
            Master(number, self._etcd, self.folder, sidecar, bridge=bridge) for number in numbers
        ]
        self.masters += made
        for master in made:
            master.start().wait_ready()
        return made

    def work(self, *names: str) -> None:
        """Start Workers, and wait until they are registered."""
        for name in names:
            arguments = [f"--id={name}", f"--metrics={LOOPBACK}:0", f"--etcd={self._etcd}"]
            program = [sys.executable, "-c", "from crawler.worker import main; main()"]
            child = Child(
                [*program, *arguments, f"--ttl={TTL}s", "--no-fetch"],
                name=f"worker-{name}",
                folder=self.folder,
            )
            self.workers[name] = Worker(name, child.start())
        wait_until(lambda: set(names) <= set(self.living()), f"{names} are registered", LONG)

    def leader(self, after: int = 0) -> Master:
        """Wait for a Master that leads with a token larger than `after`, and return it."""

        def found() -> list[Master]:
            return [one for one in self.masters if (one.leadership.token or 0) > after]

        return wait_until(found, "a leader", LONG)[0]

    def follower(self) -> Master:
        """Return a Master that does not lead, while another one does."""
        leader = self.leader()
        return next(one for one in self.masters if one is not leader)

    def get(self, prefix: str) -> dict[str, tuple[bytes, int, int]]:
        """Return value, create and mod revision of every key under a prefix."""
        reply = self.cluster.etcdctl("get", "--prefix", prefix, "--write-out=json")
        return {
            _text(kv["key"]): (
                _bytes(kv.get("value", "")),
                kv["create_revision"],
                kv["mod_revision"],
            )
            for kv in json.loads(reply.stdout).get("kvs", [])
        }

    def living(self) -> dict[str, Node]:
        """Return the registered Workers."""
        found = self.get(keys.service(keys.REGISTRY, keys.WORKER_SERVICE).decode())
        nodes = [Node.decode(value) for value, _, _ in found.values()]
        return {node.id: node for node in nodes if node is not None}

    def resources(self) -> dict[str, Resource]:
        """Return every resource as etcd has it."""
        found = {
            key: Resource.decode(value) for key, (value, _, _) in self.get(keys.RESOURCES).items()
        }
        return {record.spec.name: record for record in found.values() if record is not None}

    def assignments(self) -> dict[str, list[str]]:
        """Return the Workers of each resource, by the assignments' keys."""
        workers: dict[str, list[str]] = {}
        for key in self.get(keys.ASSIGNMENTS):
            pair = keys.assignment_of(key.encode())
            assert pair is not None, key
            workers.setdefault(pair[1], []).append(pair[0])
        return workers

    def loads(self) -> list[int]:
        """Return how many resources the living Workers have, smallest first."""
        held = [worker for workers in self.assignments().values() for worker in workers]
        return sorted(held.count(name) for name in self.living())

    def is_settled(self, names: Iterable[str]) -> bool:
        """Whether these resources, and no others, are with one living Worker each."""
        living, records, assignments = self.living(), self.resources(), self.assignments()
        return (
            set(records) == set(names)
            and all(record.worker in living for record in records.values())
            and assignments == {name: [record.worker] for name, record in records.items()}
        )


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _text(text: str) -> str:
    return _bytes(text).decode()


def fields(answer: httpx.Response) -> Mapping[str, Any]:
    """Return the JSON object of an answer."""
    document: Mapping[str, Any] = answer.json()
    return document
