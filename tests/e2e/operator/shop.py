"""A namespace with Elections, pods without kubelets, sidecars beside the tests, and operators."""

import contextlib
import http.client
import ipaddress
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sidecar.cluster.api import ApiError
from tests.e2e.operator.api_server import ApiServer, Object
from tests.integration.support import LONG, Team
from tests.support.procs import LOOPBACK, Child, ReservedPort, wait_until

ROLE, TERM = "leader-sidecar.io/role", "leader-sidecar.io/term"


class Replica:
    """One operator process."""

    def __init__(
        self,
        shop: "Shop",
        name: str,
        options: Iterable[str],
        prefix: Sequence[str] = (),
        module: str = "sidecar",
    ) -> None:
        self.name = name
        self._http, self._webhook = ReservedPort(), ReservedPort()
        self.webhook_port = self._webhook.number
        arguments = [
            "operator",
            f"--election=/operator/{shop.namespace}",
            f"--endpoints={shop.endpoint}",
            f"--id={name}",
            f"--http={LOOPBACK}:{self._http.number}",
            f"--webhook=:{self._webhook.number}",
            "--ttl=5s",
            "--log-level=debug",
            *options,
        ]
        environment = {
            "KUBECONFIG": str(shop.server.kubeconfig(shop.user)),
            "POD_NAMESPACE": shop.namespace,
        }
        self.child = Child(
            [sys.executable, "-m", module, *arguments],
            name=name,
            folder=shop.folder,
            env=environment,
            prefix=prefix,
        )

    def start(self) -> Self:
        """Start it, for the first time or again."""
        self.child.start()
        return self

    def close(self) -> None:
        """End it."""
        self.child.close()
        self._http.close()
        self._webhook.close()

    def get(self, path: str) -> tuple[int, str]:
        """Ask it over HTTP; status 0 where it does not answer."""
        connection = http.client.HTTPConnection(LOOPBACK, self._http.number, timeout=5)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's values with these labels; 0 where there is none."""
        body = self.get("/metrics")[1]
        found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", body, re.MULTILINE)
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        return sum(float(value) for said, value in found if wanted <= set(said.split(",")))

    @property
    def leads(self) -> bool:
        """Whether it says that it leads."""
        return self.metric("leader_sidecar_operator_is_leader") == 1.0


class Shop:
    """A context manager; everything in it has one namespace, and one election but for `more`."""

    def __init__(
        self, server: ApiServer, endpoint: str, folder: Path, namespace: str, user: str = "admin"
    ) -> None:
        self.server = server
        self.endpoint = endpoint
        self.folder = folder
        self.namespace = namespace
        self.user = user
        self.keys = f"/leader-sidecar/{namespace}/master"
        self.team = Team([endpoint], folder, election=self.keys)
        self._replicas: list[Replica] = []
        self._addresses = 0

    def __enter__(self) -> Self:
        self.server.admin.create(
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
        )
        self.team.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for replica in self._replicas:
            replica.close()
        self.team.__exit__(kind, error, trace)

    # --- making -------------------------------------------------------------------------------

    def operator(
        self, name: str = "op-0", *options: str, prefix: Sequence[str] = (), module: str = "sidecar"
    ) -> Replica:
        """Start an operator for this namespace, or with `--namespaces=` for all.

        `prefix` is a command that runs it, `module` another program than ours.
        """
        if not any(option.startswith("--namespaces") for option in options):
            options = (*options, f"--namespaces={self.namespace}")
        replica = Replica(self, name, options, prefix, module)
        self._replicas.append(replica)
        return replica.start()

    def election(self, name: str = "master", **spec: Any) -> Object:
        """Return an Election of this namespace."""
        return {
            "apiVersion": "leader-sidecar.io/v1alpha1",
            "kind": "Election",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "election": self.keys,
                "etcd": {"endpoints": [self.endpoint]},
                "selector": {"matchLabels": {"app": "master"}},
                **spec,
            },
        }

    def make(self, **spec: Any) -> None:
        """Make the Election."""
        path = f"/apis/leader-sidecar.io/v1alpha1/namespaces/{self.namespace}/elections"
        self.server.admin.create(path, self.election(**spec))

    def pod(self, name: str, *, node: str = "", **metadata: Any) -> None:
        """Make a pod that is Ready, as far as a kubelet would say so."""
        self._addresses += 1
        metadata = {"name": name, "labels": {"app": "master"}, **metadata}
        spec: Object = {"containers": [{"name": "program", "image": "program:1"}]}
        if node:
            spec["nodeName"] = node
        self.server.admin.create(
            f"/api/v1/namespaces/{self.namespace}/pods",
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        )
        address = str(ipaddress.IPv4Address("10.0.0.0") + self._addresses)
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        self.server.admin.merge(f"{self.path(name)}/status", {"status": status})

    def grant(self, *rules: Object) -> None:
        """Let operators of this namespace do this, and nothing else."""
        self.user = "nobody"
        here = {"name": "rights", "namespace": self.namespace}
        api = "rbac.authorization.k8s.io"
        who = {"apiGroup": api, "kind": "User", "name": self.user}
        role = {"apiGroup": api, "kind": "Role", "name": "rights"}
        self.server.must_apply(
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": here, "rules": list(rules)},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": here,
                "roleRef": role,
                "subjects": [who],
            },
        )

    def node(self, name: str) -> None:
        """Make a node that takes pods."""
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        self.server.admin.create("/api/v1/nodes", body)

    def candidates(self, *names: str, options: Iterable[str] = ()) -> None:
        """Start sidecars one after the other, so that they stand in this order."""
        made = [self.team.add(name, "--label=false", *options) for name in names]
        self.team.launch(*made)

    # --- looking ------------------------------------------------------------------------------

    def path(self, pod: str) -> str:
        """The path of a pod."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{pod}"

    @property
    def election_path(self) -> str:
        """The path of the Election."""
        base = f"/apis/leader-sidecar.io/v1alpha1/namespaces/{self.namespace}"
        return f"{base}/elections/master"

    @property
    def status(self) -> Object:
        """The Election's status."""
        found = self.server.admin.get(self.election_path).get("status") or {}
        assert isinstance(found, dict)
        return found

    def condition(self, type_: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = {c["type"]: c for c in self.status.get("conditions", [])}.get(type_, {})
        return found.get("status", ""), found.get("reason", "")

    def role(self, pod: str) -> str | None:
        """What a pod's label says."""
        found = self.server.admin.get(self.path(pod))["metadata"].get("labels") or {}
        role = found.get(ROLE)
        return None if role is None else str(role)

    @property
    def events(self) -> list[Object]:
        """All Events of the namespace."""
        found = self.server.admin.get(f"/api/v1/namespaces/{self.namespace}/events")
        return list(found["items"])

    def reasons(self) -> list[str]:
        """The reasons of all Events."""
        return [str(event["reason"]) for event in self.events]

    def wait_for_leader(self, name: str) -> float:
        """Wait until the status says that a candidate leads; return the seconds."""
        return self.until(lambda: self.status.get("leader", {}).get("id") == name, f"{name} leads")

    def wait_for_label(self, name: str) -> float:
        """Wait until a pod's label says that it leads; return the seconds."""
        return self.until(lambda: self.role(name) == "leader", f"{name} is labelled")

    def wait_for_readiness(self, replica: Replica) -> None:
        """Wait until a replica says that it is ready."""
        self.until(lambda: replica.get("/readyz")[0] == 200, f"{replica.name} is ready")

    def until(self, condition: Callable[[], object], what: str, within: float = LONG) -> float:
        """Wait until a condition holds; return how many seconds that took."""

        def holds() -> object:
            try:
                return condition()
            except ApiError:
                return False

        began = time.monotonic()
        try:
            wait_until(holds, what, within)
        except AssertionError as exc:
            tails = "\n".join(replica.child.tail() for replica in self._replicas)
            with contextlib.suppress(ApiError):  # where there is an Election
                tails = f"{self.status}\n{tails}"
            raise AssertionError(f"{exc}\n{tails}") from None
        return time.monotonic() - began
