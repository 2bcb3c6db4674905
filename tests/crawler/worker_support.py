"""Whole Workers on a real etcd, and what a Master would write for them."""

import json
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crawler import keys
from crawler.records import Assignment, Results, Spec

from tests.support.etcd_cluster import EtcdCluster
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until

TTL = 2
LONG = 60.0  # seconds; a bound for a slow machine, not an expectation


class Store:
    """etcd as a Master sees it, by etcdctl."""

    def __init__(self, cluster: EtcdCluster) -> None:
        self.cluster = cluster

    def assign(self, worker: str, spec: Spec, *, to: str | None = None) -> None:
        """Put an assignment under a Worker's keys; `to` is the Worker that it names."""
        value = Assignment(spec, to or worker).encode().decode()
        self.cluster.etcdctl("put", keys.assignment(worker, spec.name).decode(), value)

    def withdraw(self, worker: str, name: str) -> None:
        """Delete an assignment."""
        self.cluster.etcdctl("del", keys.assignment(worker, name).decode())

    def kv(self, key: bytes) -> dict[str, Any] | None:
        """Return a key as etcd has it, without its value."""
        got = self.cluster.etcdctl("get", key.decode(), "--write-out=json")
        found: list[dict[str, Any]] = json.loads(got.stdout).get("kvs", [])
        return found[0] if found else None

    def value(self, key: bytes) -> bytes:
        """Return a key's value, b"" where there is none."""
        return self.cluster.etcdctl("get", key.decode(), "--print-value-only").stdout.encode()

    def results(self, name: str) -> Results:
        """Return the results of a resource, empty where there are none."""
        return Results.decode(self.value(keys.results(name))) or Results(name, "")

    def wait_for_results(self, name: str, more_than: int) -> Results:
        """Wait until so many pages were counted, and one more."""

        def found() -> Results | None:
            results = self.results(name)
            return results if results.fetched > more_than else None

        return wait_until(found, f"results of {name} above {more_than}", LONG)

    def registration(self, worker: str) -> int:
        """Return the create revision of a Worker's registration, 0 where it has none."""
        kv = self.kv(keys.node(keys.REGISTRY, keys.WORKER_SERVICE, worker))
        return int(kv["create_revision"]) if kv else 0

    def wait_for_registration(self, worker: str, after: int = 0) -> int:
        """Wait until a Worker is registered, later than this revision."""

        def found() -> int:
            revision = self.registration(worker)
            return revision if revision > after else 0

        return wait_until(found, f"worker {worker} is registered", LONG)

    def wait_until_gone(self, worker: str) -> None:
        """Wait until a Worker's lease has run out, or was given back."""
        wait_until(lambda: not self.registration(worker), f"worker {worker} is gone", LONG)


class Worker:
    """One Worker process."""

    def __init__(
        self, id_: str, endpoints: Sequence[str], folder: Path, *options: str, name: str = ""
    ) -> None:
        self.id = id_
        self._port = ReservedPort()
        command = [sys.executable, "-m", "crawler.worker", f"--id={id_}"]
        command += [f"--etcd={','.join(endpoints)}", f"--metrics={LOOPBACK}:{self._port.number}"]
        command += [f"--ttl={TTL}", *options]
        self.child = Child(command, name=name or f"worker{id_}", folder=folder)

    def close(self) -> None:
        """End it and give its port back."""
        self.child.close()
        self._port.close()

    def metric(self, sample: str) -> float:
        """Return a sample of its metrics, by its name with labels; 0 where it is not told.

        Raises:
            OSError: it does not listen yet.
        """
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._port.number}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        told = dict(line.rsplit(" ", 1) for line in lines)
        return float(told.get(sample, 0))

    def wait_for_metric(self, sample: str, value: float) -> None:
        """Wait until a sample has this value."""

        def holds() -> bool:
            try:
                return self.metric(sample) == value
            except OSError:
                return False

        wait_until(holds, f"{sample} is {value}", LONG)

    def wait_for_log(self, pattern: str, *, skip: int = 0) -> None:
        """Wait for a line in its log."""
        self.child.wait_for_line(pattern, stream="err", skip=skip, within=LONG)
