"""kubectl, with one kubeconfig."""

import http.client
import json
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.e2e.support.engine import run
from tests.support.procs import LOOPBACK, Child, inherited_environment

_TIMEOUT = 600.0  # seconds
_ANSWERS_WITHIN = 60.0  # seconds
_APIS = {"pods": "/api/v1", "deployments": "/apis/apps/v1", "statefulsets": "/apis/apps/v1"}
_EVENTS = {"events", "events.events.k8s.io"}
_IN_EVERY_NAMESPACE = {"configmap/kube-root-ca.crt", "serviceaccount/default"}

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Calls of kubectl; `folder` keeps what those write that run on.

    `port` is that of a `kubectl proxy`, if one runs: to ask through it takes no process.
    """

    program: Path
    kubeconfig: Path
    folder: Path
    namespace: str | None = None
    port: int | None = None

    def within(self, namespace: str) -> "Kubectl":
        """Return the same for a namespace."""
        return replace(self, namespace=namespace)

    @contextmanager
    def served(self) -> Iterator["Kubectl"]:
        """Have a proxy run until the end, and return what asks through it."""
        with self.child("proxy", "--port=0", name="proxy") as proxy:
            found = proxy.wait_for_line(r"Starting to serve on 127\.0\.0\.1:(\d+)")
            yield replace(self, port=int(found[1]))

    def ask(self, path: str) -> str:
        """Return what the API server answers to a path.

        Raises:
            RuntimeError: it does not answer, or with an error.
        """
        if self.port is None:
            return self.run("get", "--raw", path, timeout=_ANSWERS_WITHIN)
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_ANSWERS_WITHIN)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            body = reply.read().decode()
        except (OSError, http.client.HTTPException) as failed:
            raise RuntimeError(f"{path}: {failed!r}") from failed
        finally:
            connection.close()
        if reply.status != http.client.OK:
            raise RuntimeError(f"{path}: {reply.status} {body[:1000]}")
        return body

    def listed(self, kind: str, selector: str) -> list[Object]:
        """Return the objects of a kind with these labels."""
        assert self.namespace is not None
        which = urllib.parse.urlencode({"labelSelector": selector})
        path = f"{_APIS[kind]}/namespaces/{self.namespace}/{kind}?{which}"
        found: list[Object] = json.loads(self.ask(path))["items"]
        return found

    def command(self, *arguments: str) -> list[str]:
        """Return a command line."""
        where = ["-n", self.namespace] if self.namespace else []
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", *where, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = _TIMEOUT) -> str:
        """Run it and return what it printed.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        environment = inherited_environment()
        return run(self.command(*arguments), environment, stdin=stdin, timeout=timeout)

    def get(self, *arguments: str) -> Object:
        """Return what `kubectl get` finds, as JSON."""
        found: Object = json.loads(self.run("get", *arguments, "-o", "json"))
        return found

    def apply(self, *objects: Object) -> None:
        """Apply objects."""
        everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "-f", "-", stdin=json.dumps(everything))

    def exists(self, *arguments: str) -> bool:
        """Return whether there is something that `kubectl get` finds."""
        return bool(self.run("get", *arguments, "--ignore-not-found", "-o", "name").strip())

    def everything(self) -> list[str]:
        """Return the names of all that is in the namespace, but Events and what each one has."""
        kinds = self.run("api-resources", "--verbs=list", "--namespaced", "-o", "name")
        every = ",".join(set(kinds.split()) - _EVENTS)
        listed = self.run("get", every, "-o", "name", "--ignore-not-found")
        return sorted(set(listed.split()) - _IN_EVERY_NAMESPACE)

    def ask_pod(self, pod: str, port: int, path: str) -> str:
        """Return what a pod answers over HTTP, through the API server.

        Raises:
            RuntimeError: it does not answer, or with an error.
        """
        assert self.namespace is not None
        where = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{path}"
        return self.ask(where)

    def child(self, *arguments: str, name: str) -> Child:
        """Start it, to run on until it is stopped."""
        # A folder of its own: a child adds its output to what it finds under its name.
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        return Child(self.command(*arguments), name=name, folder=folder)

    def completed(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run it, whatever comes of it."""
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=inherited_environment(),
            timeout=_TIMEOUT,
            check=False,
        )


def names(listed: Object) -> Sequence[str]:
    """Return the names of listed objects, in order."""
    return sorted(item["metadata"]["name"] for item in listed["items"])
