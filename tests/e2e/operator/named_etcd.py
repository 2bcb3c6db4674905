"""The etcd of the chart by its Service's names: three members, each with an address of its own.

They live in a network of their own, where `/etc/hosts` says what the cluster's DNS would, and run
with the configuration and the certificates of the chart. What the chart's Job does with users is
done by the same command.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from sidecar.cluster.plan import Plan
from tests.e2e.operator.api_server import Object
from tests.support.binaries import etcd_binaries
from tests.support.etcd_server import HEALTHY_WITHIN
from tests.support.helm import one
from tests.support.procs import Child, inherited_environment, wait_until

_SHOWN = """
import socket, ssl, sys
name, ca, cert, key = sys.argv[1:]
trusting = ssl.create_default_context(cafile=ca)
trusting.load_cert_chain(cert, key)
with socket.create_connection((name, 2379), timeout=30) as plain:
    with trusting.wrap_socket(plain, server_hostname=name) as tls:
        sys.stdout.write(ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)))
"""


class NamedEtcd:
    """A context manager; the members run once `start` was called."""

    def __init__(self, objects: Sequence[Object], config: str, folder: Path) -> None:
        """Take the chart's objects, and the name of the ConfigMap with the plan; needs root."""
        data = one(list(objects), "ConfigMap", config)["data"]
        self._folder = folder
        self._resources = ExitStack()
        self._plan_file, self._users_file = folder / "plan.json", folder / "users.json"
        self._plan_file.write_text(data["plan.json"])
        self._users_file.write_text(data["users.json"])
        self.plan = Plan.read(self._plan_file)
        self.members: dict[str, Child] = {}
        self._addresses = {name: f"198.19.255.{n}" for n, name in enumerate(self.plan.names, 1)}

    def __enter__(self) -> Self:
        holder = Child(
            ["unshare", "--net", "--mount", "sleep", "infinity"],
            name="named-etcd",
            folder=self._folder,
        )
        scratch = tempfile.TemporaryDirectory(prefix="leader-sidecar-etcd-")
        self._data = Path(self._resources.enter_context(scratch))  # large: not kept as logs are
        try:
            self._resources.enter_context(holder)
            # By then its mounts are its own, too: before, ours would take part in them.
            program = Path(f"/proc/{holder.pid}/comm")
            wait_until(lambda: program.read_text() == "sleep\n", "a namespace of its own")
            spaces = (f"--{kind}=/proc/{holder.pid}/ns/{path}" for kind, path in _SPACES)
            self.prefix = ("nsenter", *spaces, "--")
            self._connect()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._resources.close()

    @property
    def endpoints(self) -> list[str]:
        """The endpoints of the chart's sidecars."""
        return [str(endpoint) for endpoint in self.plan.endpoints]

    def put(self, who: str, secret: Mapping[str, bytes]) -> None:
        """Write a Secret's data where its pod would have it, in the place of what is there."""
        folder = self._folder / who
        folder.mkdir(exist_ok=True)
        for name, content in secret.items():
            (folder / name).write_bytes(content)

    def credentials(self, who: str) -> list[str]:
        """Return the options of a client."""
        names = {"cacert": "ca.crt", "cert": "tls.crt", "key": "tls.key"}
        return [f"--{flag}={self._folder / who / name}" for flag, name in names.items()]

    def start(self) -> None:
        """Start all members, and make the users with root's certificate."""
        for name in self.plan.names:
            config = self._folder / f"{name}.yaml"
            config.write_text(yaml.safe_dump(self._config(name)))
            child = Child(
                [etcd_binaries().etcd, f"--config-file={config}"],
                name=name,
                folder=self._folder,
                prefix=self.prefix,
            )
            self.members[name] = self._resources.enter_context(child)
        files = (f"--plan={self._plan_file}", f"--users={self._users_file}", "--within=60s")
        done = self.run("etcd", "users", *files, *self.credentials("root"))
        logs = "\n".join(member.tail() for member in self.members.values())
        assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{logs}"

    def restart(self, name: str) -> None:
        """Stop a member in order and start it again; wait until it answers."""
        self.members[name].terminate()
        self.members[name].start()
        url = self.plan.client_url_of(name)
        wait_until(
            lambda: self.etcdctl("root", "endpoint", "health", endpoint=url).returncode == 0,
            f"{name} is healthy",
            HEALTHY_WITHIN,
        )

    def shown(self, name: str, who: str) -> bytes:
        """Return the certificate (PEM) that a member shows to a client who checks its name."""
        files = [option.partition("=")[2] for option in self.credentials(who)]
        done = self._inside([sys.executable, "-c", _SHOWN, name, *files])
        assert done.returncode == 0, done.stderr
        return done.stdout.encode()

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of the product to its end."""
        return self._inside([sys.executable, "-m", "sidecar", *arguments])

    def etcdctl(
        self, who: str, *arguments: str, endpoint: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run etcdctl to its end, as one of the clients."""
        where = f"--endpoints={endpoint or ','.join(self.endpoints)}"
        return self._inside(
            [str(etcd_binaries().etcdctl), where, *self.credentials(who), *arguments]
        )

    def _inside(self, command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.prefix, *command],
            capture_output=True,
            text=True,
            env=inherited_environment(),
            timeout=2 * HEALTHY_WITHIN,
            check=False,
        )

    def _connect(self) -> None:
        domain = self.plan.endpoints[0].host
        lines = [f"{ip} {name}.{domain} {domain}" for name, ip in self._addresses.items()]
        hosts = self._folder / "hosts"
        hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        for command in (
            ["mount", "--bind", str(hosts), "/etc/hosts"],
            ["ip", "link", "set", "lo", "up"],
            *(["ip", "addr", "add", f"{ip}/32", "dev", "lo"] for ip in self._addresses.values()),
        ):
            done = self._inside(command)
            assert done.returncode == 0, done.stderr

    def _config(self, name: str) -> Object:
        text = json.dumps(self.plan.config).replace("0.0.0.0", self._addresses[name])  # noqa: S104
        config: Object = json.loads(text.replace("/etc/etcd-tls/", f"{self._folder}/server/"))
        peers = [f"{each}={self.plan.peer_url_of(each)}" for each in self.plan.names]
        return {
            **config,
            "name": name,
            "data-dir": str(self._data / name),
            "unsafe-no-fsync": True,
            "initial-advertise-peer-urls": self.plan.peer_url_of(name),
            "advertise-client-urls": self.plan.client_url_of(name),
            "initial-cluster": ",".join(peers),
            "initial-cluster-state": "new",
            "initial-cluster-token": self.plan.token,
        }


_SPACES = (("net", "net"), ("mount", "mnt"))
