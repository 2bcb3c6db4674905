"""One real etcd member: a process with ports and a data directory of its own.

Ports are reserved for the member's life, so after a restart it always gets its own ones back.
Health and leadership are read from the metrics port, which speaks plain HTTP and wants no password,
whatever the clients need.
"""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tests.support.binaries import BUILT_VERSION, EtcdBinaries
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until
from tests.support.tls import TlsFiles

HEALTHY_WITHIN = 60.0  # seconds; a slow disk may keep an election waiting
HTTP_TIMEOUT = 1.0  # seconds for one look; a frozen member never answers
_without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class EtcdOptions:
    """How the members run; None leaves a setting at etcd's default.

    `data_parent` is where the data directories go (a small tmpfs, for instance); `no_fsync` trades
    safety against a crash of the machine for speed on a slow disk.
    """

    version: str = BUILT_VERSION
    members: int = 1
    heartbeat_ms: int | None = None
    election_ms: int | None = None
    auth_token_ttl: int | None = None  # seconds
    quota_backend_bytes: int | None = None
    tls: TlsFiles | None = None  # for clients; members talk to each other in the clear
    data_parent: Path | None = None
    no_fsync: bool = False
    extra: tuple[str, ...] = ()  # further flags of etcd

    def flags(self) -> list[str]:
        """Return the flags that all members have in common."""
        numbers = {
            "--heartbeat-interval": self.heartbeat_ms,
            "--election-timeout": self.election_ms,
            "--auth-token-ttl": self.auth_token_ttl,
            "--quota-backend-bytes": self.quota_backend_bytes,
        }
        flags = [f"{flag}={value}" for flag, value in numbers.items() if value is not None]
        if self.no_fsync:
            flags.append("--unsafe-no-fsync")
        if self.tls is not None:
            server = self.tls.server
            flags += [f"--cert-file={server.cert}", f"--key-file={server.key}"]
            flags += ["--client-cert-auth", f"--trusted-ca-file={self.tls.ca}"]
        return [*flags, *self.extra]


class EtcdServer:
    """One member: a process with ports and a data directory of its own."""

    def __init__(self, name: str, binaries: EtcdBinaries, options: EtcdOptions, folder: Path):
        """Reserve the ports. `folder` takes the log and, unless the options say else, the data."""
        self.name = name
        self.data_dir = (options.data_parent or folder) / f"{name}.etcd"
        self._ports = [ReservedPort() for _ in range(3)]
        self.client_port, self.peer_port, self.metrics_port = (p.number for p in self._ports)
        self._binaries = binaries
        self._options = options
        self._folder = folder
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        """The URL for clients."""
        scheme = "http" if self._options.tls is None else "https"
        return f"{scheme}://{LOOPBACK}:{self.client_port}"

    @property
    def peer_url(self) -> str:
        """The URL for the other members."""
        return f"http://{LOOPBACK}:{self.peer_port}"

    @property
    def child(self) -> Child:
        """The process, for what has no verb here."""
        assert self._child is not None
        return self._child

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._child is not None and self._child.running

    def launch(self, initial_cluster: str) -> None:
        """Start the process for the first time, without waiting until it is healthy."""
        metrics_url = f"http://{LOOPBACK}:{self.metrics_port}"
        self._child = Child(
            [
                self._binaries.etcd,
                f"--name={self.name}",
                f"--data-dir={self.data_dir}",
                f"--listen-client-urls={self.endpoint}",
                f"--advertise-client-urls={self.endpoint}",
                f"--listen-peer-urls={self.peer_url}",
                f"--initial-advertise-peer-urls={self.peer_url}",
                f"--initial-cluster={initial_cluster}",
                f"--listen-metrics-urls={metrics_url}",
                *self._options.flags(),
            ],
            name=self.name,
            folder=self._folder,
        ).start()

    def start(self) -> None:
        """Start a stopped or killed member again and wait until it is healthy."""
        self.child.start()
        self.wait_healthy()

    def stop(self) -> None:
        """Stop in order (SIGTERM): a leader hands over to another member first."""
        self.child.terminate()

    def kill(self) -> None:
        """Kill without warning (SIGKILL)."""
        self.child.kill()

    def restart(self) -> None:
        """Stop in order, when it runs, and start again."""
        if self.running:
            self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze (SIGSTOP): connections stay open and are even accepted, nothing is answered."""
        self.child.pause()

    def resume(self) -> None:
        """Let a frozen member go on (SIGCONT)."""
        self.child.resume()

    def is_healthy(self) -> bool:
        """Whether it answers and sees a leader; an alarm NOSPACE is not held against it."""
        answer = self.http_get("/health?exclude=NOSPACE")
        return answer is not None and json.loads(answer)["health"] == "true"

    def wait_healthy(self, within: float = HEALTHY_WITHIN) -> None:
        """Wait until it is healthy.

        Raises:
            AssertionError: with the end of its log, when it ended or takes longer than `within` s.
        """
        healthy = False
        try:
            healthy = wait_until(lambda: self.is_healthy() or not self.running, "health", within)
        except AssertionError:
            raise AssertionError(f"unhealthy for {within} s\n{self.child.tail()}") from None
        if not healthy or not self.running:
            raise AssertionError(f"ended instead of being healthy\n{self.child.tail()}")

    def is_leader(self) -> bool:
        """Whether it takes itself for the leader of the cluster; one that is silent does not."""
        return self.metric("etcd_server_is_leader") == 1

    def metric(self, name: str) -> float | None:
        """Return the value of a metric without labels, or None when it does not answer."""
        for line in (self.http_get("/metrics") or "").splitlines():
            found, _, value = line.partition(" ")
            if found == name:
                return float(value)
        return None

    def http_get(self, path: str) -> str | None:
        """Return what the metrics port says, or None when it does not answer within a second."""
        url = f"http://{LOOPBACK}:{self.metrics_port}{path}"
        try:
            with _without_proxy.open(url, timeout=HTTP_TIMEOUT) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.HTTPError as refusal:  # /health says no by status 503 and the same body
            with refusal:
                return refusal.read().decode()
        except (OSError, HTTPException):
            return None

    def close(self) -> None:
        """End the process and give the ports back."""
        if self._child is not None:
            self._child.close()
        for port in self._ports:
            port.close()
