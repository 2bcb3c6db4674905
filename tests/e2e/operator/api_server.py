"""A kube-apiserver with an etcd of its own, as plain processes: no controllers, no nodes.

Pods are objects that nobody runs; what a kubelet or a controller would write, a test writes.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from sidecar.cluster.api import Api, ApiError
from tests.support.binaries import require_go_program
from tests.support.etcd_cluster import EtcdCluster, EtcdOptions
from tests.support.helm import run_helm
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until

STARTED_WITHIN = 120.0
CRDS = Path(__file__).resolve().parents[3] / "charts" / "leader-sidecar-crds"
Object = dict[str, Any]


def kinds() -> list[Object]:
    """Return what the chart of the kind Election makes."""
    done = run_helm("template", "crds", str(CRDS), "--kube-version", "1.34")
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def election_kind() -> Object:
    """Return the definition of the kind Election."""
    (found,) = (made for made in kinds() if made["kind"] == "CustomResourceDefinition")
    return found


def program() -> Path:
    """Return the multi-call binary of Kubernetes' commands."""
    return require_go_program("kubernetes")


class ApiServer:
    """A context manager; `admin` may do everything."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._etcd = EtcdCluster(EtcdOptions(no_fsync=True))
        self._port = ReservedPort()
        self.url = f"https://{LOOPBACK}:{self._port.number}"
        self._tokens: dict[str, str] = {"admin": "system:masters"}
        self._pki = folder / "pki"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self._etcd.__enter__()
        self._pki.mkdir()
        for command in (
            ("genrsa", "-out", "sa.key", "2048"),
            ("rsa", "-in", "sa.key", "-pubout", "-out", "sa.pub"),
        ):
            subprocess.run(["openssl", *command], cwd=self._pki, check=True, capture_output=True)
        users = {"admin": "system:masters", "operator": "", "nobody": ""}
        lines = [f'{name}-token,{name},{name},"{group}"' for name, group in users.items()]
        (self._folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        for name in users:
            (self._folder / f"{name}.token").write_text(f"{name}-token")
        (self._folder / "kube-apiserver").symlink_to(program())
        (self._folder / "kubectl").symlink_to(program())
        arguments = {
            "etcd-servers": self._etcd.endpoints[0],
            "secure-port": self._port.number,
            "bind-address": LOOPBACK,
            "cert-dir": self._pki,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": self._pki / "sa.key",
            "service-account-key-file": self._pki / "sa.pub",
            "service-cluster-ip-range": "10.96.0.0/16",
            "token-auth-file": self._folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "disable-admission-plugins": "ServiceAccount",
            "profiling": "false",
            # Webhooks by their Service's endpoints: there is no kube-proxy for its address.
            "enable-aggregator-routing": "true",
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        self._child = Child(
            [str(self._folder / "kube-apiserver"), *flags], name="apiserver", folder=self._folder
        ).start()
        wait_until(self._is_ready, "the API server is ready", STARTED_WITHIN)
        self.kubeconfig("admin")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._child is not None:
            self._child.close()
        self._port.close()
        self._etcd.__exit__(kind, error, trace)

    @contextmanager
    def namespace_controller(self) -> Iterator[None]:
        """Have namespaces that were deleted emptied and removed."""
        path = self._folder / "kube-controller-manager"
        if not path.exists():
            path.symlink_to(program())
        arguments = {
            "kubeconfig": self.kubeconfig("admin"),
            "controllers": "namespace-controller",
            "leader-elect": "false",
            "secure-port": 0,
        }
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        with Child([str(path), *flags], name="controllers", folder=self._folder):
            yield

    @property
    def admin(self) -> Api:
        """A client that may do everything."""
        return self.client("admin")

    @property
    def child(self) -> Child:
        """The process."""
        assert self._child is not None
        return self._child

    def client(self, user: str) -> Api:
        """A client of a user: admin, operator or nobody."""
        ca = self._pki / "apiserver.crt"
        return Api(self.url, self._folder / f"{user}.token", ca)

    def kubeconfig(self, user: str) -> Path:
        """Return a kubeconfig of a user."""
        cluster = {"server": self.url, "certificate-authority": str(self._pki / "apiserver.crt")}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": f"{user}-token"}}],
            "contexts": [{"name": user, "context": {"cluster": "here", "user": user}}],
            "current-context": user,
        }
        path = self._folder / f"{user}.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def kubectl(
        self, *arguments: str, stdin: str = "", user: str = "admin"
    ) -> "subprocess.CompletedProcess[str]":
        """Run kubectl to its end."""
        return subprocess.run(
            [str(self._folder / "kubectl"), *arguments],
            capture_output=True,
            text=True,
            input=stdin,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig(user))},
            timeout=STARTED_WITHIN,
            check=False,
        )

    def apply(self, *documents: Object) -> "subprocess.CompletedProcess[str]":
        """Apply manifests as `kubectl apply` does."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    def must_apply(self, *documents: Object) -> None:
        """Apply manifests, which have to be taken."""
        done = self.apply(*documents)
        assert done.returncode == 0, done.stderr

    def _is_ready(self) -> bool:
        assert self._child is not None
        assert self._child.running, self._child.tail()
        try:
            self.admin.get("/api/v1/namespaces/kube-system")
        except (ApiError, OSError):
            return False
        return True
