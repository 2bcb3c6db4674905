"""The home of kopf: it watches Elections, pods and nodes, in a thread and a loop of its own.

Only `on.event` handlers: they store nothing on the objects, no finalizer and no annotation, so
that an Election, and its namespace, can be deleted while no operator runs. What they see is read
into small facts here and handed to the main loop, which decides and writes; nothing in this thread
ever writes, so it can end at any moment, and late.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from sidecar.kube.access import CA, DIRECTORY, HOST, PORT, TOKEN, is_inside
from sidecar.operator import unreadable
from sidecar.operator.api import PAGE
from sidecar.operator.facts import read_node, read_pod
from sidecar.operator.hub import Hub
from sidecar.operator.names import GROUP, PLURAL, VERSION

log = logging.getLogger(__name__)

_GONE = "DELETED"


class Watch:
    """One run of kopf; never started twice in a process.

    Args:
        hub: told of what is seen, in the loop that makes this object.
        namespaces: to watch; none for all, and for nodes, too.
        identity: what this process calls itself.
        failed: called in that loop when kopf has ended by itself.
    """

    def __init__(
        self, hub: Hub, namespaces: Sequence[str], identity: str, failed: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._namespaces = tuple(namespaces)
        # kopf asks the system for the name of its user else, and in a container there is none.
        self._identity: Any = identity
        self._failed = failed
        self._main = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end."""
        self._stop.set()

    @property
    def is_alive(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    async def ended(self) -> None:
        """Wait until the thread has ended."""
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        # Its account of each handler and of each reconnection; errors still come through.
        logging.getLogger("kopf").setLevel(logging.ERROR)
        try:
            asyncio.run(self._watch())
        except Exception:
            log.exception("watching failed")
        if not self._stop.is_set():
            self._main.call_soon_threadsafe(self._failed)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(),
            identity=self._identity,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(_login)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._on_election)
        kopf.on.event("", "v1", "pods", registry=registry)(self._on_pod)
        if not self._namespaces:
            kopf.on.event("", "v1", "nodes", registry=registry)(self._on_node)
        return registry

    async def _on_election(self, event: Any, **_: Any) -> None:
        body, hub = event["object"], self._hub
        metadata = body["metadata"]
        key = (str(metadata.get("namespace", "")), str(metadata["name"]))
        if event["type"] == _GONE:
            self._hand_over(hub.election_gone, key, str(metadata["uid"]))
            return
        self._hand_over(hub.election_seen, unreadable.read(body))

    async def _on_pod(self, event: Any, **_: Any) -> None:
        pod = read_pod(event["object"])
        if event["type"] == _GONE:
            self._hand_over(self._hub.pod_gone, pod.key, pod.uid)
        else:
            self._hand_over(self._hub.pod_seen, pod)

    async def _on_node(self, event: Any, **_: Any) -> None:
        if event["type"] == _GONE:
            self._hand_over(self._hub.node_gone, str(event["object"]["metadata"]["name"]))
        else:
            self._hand_over(self._hub.node_seen, read_node(event["object"]))

    def _hand_over(self, tell: Callable[..., None], *arguments: Any) -> None:
        if not self._stop.is_set():
            self._main.call_soon_threadsafe(tell, *arguments)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = PAGE
    # kopf has a task for each object of late; those of a long list are not all there at once.
    settings.queueing.worker_limit = 100
    settings.queueing.idle_timeout = 0.05
    settings.process.ultimate_exiting_timeout = None
    return settings


async def _login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the way in, read anew: called again whenever the API server has refused the token."""
    if not is_inside(os.environ):
        return kopf.login_with_kubeconfig(**arguments)
    host, port = os.environ[HOST], os.environ.get(PORT, "443")
    shown = f"[{host}]" if ":" in host else host
    token = await asyncio.to_thread(_read, f"{DIRECTORY}/{TOKEN}")
    return kopf.ConnectionInfo(
        server=f"https://{shown}:{port}", ca_path=f"{DIRECTORY}/{CA}", token=token
    )


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:  # noqa: PTH123
        return file.read().strip()
