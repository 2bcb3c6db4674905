"""An HTTPS server that answers as the Kubernetes API server does, with levers.

It knows pods, merge patches on a version, Events, access reviews and tokens. It runs in a thread of
its own, so that it can be used by tests with and without an event loop, and by whole sidecars.
"""

import asyncio
import contextlib
import copy
import json
import ssl
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from sidecar.kube.access import PodAccess
from tests.support.procs import LOOPBACK, ReservedPort
from tests.support.tls import LOOPBACK_NAMES, Authority

PATIENCE = 60.0  # seconds; a bound for a slow machine, not an expectation
NAMESPACE, POD = "shop", "master-0"
Document = dict[str, Any]
Answer = tuple[int, Document, dict[str, str]]
Cut = Literal["", "before", "after"]  # its effect


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived; `at` is the server's loop time."""

    method: str
    path: str
    token: str
    kind: str
    body: Document
    at: float
    connection: int


class Hold:
    """A request that has arrived, and takes effect when it is let go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.gone_on = threading.Event()
        self.done = threading.Event()

    def wait(self) -> None:
        """Wait until the request is there."""
        assert self.reached.wait(PATIENCE), "no request came to be held"

    def let_go(self) -> None:
        """Let it take effect, and wait until it has, if there is one."""
        self.gone_on.set()
        if self.reached.is_set():
            assert self.done.wait(PATIENCE), "the held request never took effect"


@dataclass(slots=True)
class Plan:
    """What happens to one request that is out of the ordinary."""

    method: str
    hold: Hold | None = None
    cut: Cut = ""
    answer: Answer | None = None


@dataclass(slots=True)
class State:
    """What the server knows; guarded by the lock of `KubeApi`."""

    tokens: set[str] = field(default_factory=set)
    pods: dict[str, Document] = field(default_factory=dict)
    events: dict[str, Document] = field(default_factory=dict)
    denied: set[tuple[str, str]] = field(default_factory=set)
    version: int = 100


class KubeApi:
    """A context manager; `access` is for clients, with a token that is accepted."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "kube-ca")
        pair = authority.issue("apiserver", common_name="apiserver", hosts=LOOPBACK_NAMES)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(pair.cert, pair.key)
        self.account = folder / "serviceaccount"
        self.account.mkdir()
        (self.account / "ca.crt").write_bytes(authority.cert.read_bytes())
        self._port = ReservedPort()
        self._lock = threading.RLock()
        self._state = State()
        self._plans: deque[Plan] = deque()
        self.requests: list[Request] = []
        self.connections = 0
        self.chunked = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kube-api")
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.rotate("token-1")
        self.make_pod()

    def __enter__(self) -> Self:
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for plan in self._plans:
            if plan.hold:
                plan.hold.gone_on.set()
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._port.close()

    # --- what clients need --------------------------------------------------------------------

    @property
    def access(self) -> PodAccess:
        """The way of the pod to this server."""
        return PodAccess(POD, NAMESPACE, self.uid, LOOPBACK, self._port.number, self.account)

    @property
    def environment(self) -> dict[str, str]:
        """What Kubernetes tells the pod."""
        return {
            "KUBERNETES_SERVICE_HOST": LOOPBACK,
            "KUBERNETES_SERVICE_PORT": str(self._port.number),
            "POD_NAME": POD,
            "POD_NAMESPACE": NAMESPACE,
            "POD_UID": self.uid,
            "LEADER_SIDECAR_SERVICE_ACCOUNT_DIR": str(self.account),
        }

    # --- what is there ------------------------------------------------------------------------

    @property
    def pod(self) -> Document:
        """The pod as it is now."""
        with self._lock:
            return copy.deepcopy(self._state.pods[POD])

    @property
    def uid(self) -> str:
        """The uid of the pod that has the name now."""
        return str(self.pod["metadata"]["uid"])

    @property
    def marks(self) -> tuple[str | None, str | None, str | None]:
        """Role, term and deletion cost of the pod."""
        metadata = self.pod["metadata"]
        annotations = metadata["annotations"]
        return (
            metadata["labels"].get("leader-sidecar.io/role"),
            annotations.get("leader-sidecar.io/term"),
            annotations.get("controller.kubernetes.io/pod-deletion-cost"),
        )

    @property
    def events(self) -> list[Document]:
        """All Events, in the order of their creation."""
        with self._lock:
            return list(self._state.events.values())

    def count(self, method: str, part: str = "/pods/") -> int:
        """Return how many requests of this method to such a path have arrived."""
        with self._lock:
            return sum(one.method == method and part in one.path for one in self.requests)

    # --- levers -------------------------------------------------------------------------------

    def make_pod(self) -> None:
        """Make a new pod of the name, another than before if there was one."""
        with self._lock:
            metadata = {
                "name": POD,
                "namespace": NAMESPACE,
                "uid": str(uuid.uuid4()),
                "labels": {"app": "demo"},
                "annotations": {},
            }
            self._state.pods[POD] = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
            self._touch()

    def remove_pod(self) -> None:
        """Delete the pod."""
        with self._lock:
            del self._state.pods[POD]

    def mark(self, **annotations_or_role: str) -> None:
        """Write as somebody else: `role`, `term`; without any as the kubelet does, the status."""
        with self._lock:
            metadata = self._state.pods[POD]["metadata"]
            if role := annotations_or_role.get("role"):
                metadata["labels"]["leader-sidecar.io/role"] = role
            if term := annotations_or_role.get("term"):
                metadata["annotations"]["leader-sidecar.io/term"] = term
            self._touch()

    def rotate(self, token: str, *, revoke: bool = True) -> None:
        """Write a new token as the kubelet does: a new file in the place of the old one."""
        with self._lock:
            if revoke:
                self._state.tokens.clear()
            self._state.tokens.add(token)
        fresh = self.account / "..fresh"
        fresh.write_text(token + "\n")
        fresh.rename(self.account / "token")

    def revoke_tokens(self) -> None:
        """Accept none, whatever the file says."""
        with self._lock:
            self._state.tokens.clear()

    def deny(self, *permissions: tuple[str, str]) -> None:
        """Take away exactly these permissions (verb, resource) from now on."""
        with self._lock:
            self._state.denied = set(permissions)

    def refuse(
        self, method: str, status: int, *, times: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        """Answer the next requests of a method with this status."""
        answer = _status(status, "made to fail")
        with self._lock:
            for _ in range(times):
                plan = Plan(method, answer=(answer[0], answer[1], headers or {}))
                self._plans.append(plan)

    def cut(self, method: str, when: Literal["before", "after"]) -> None:
        """Cut the connection of the next request, before or after it has taken effect."""
        with self._lock:
            self._plans.append(Plan(method, cut=when))

    @contextmanager
    def holding(self, method: str) -> Iterator[Hold]:
        """Hold the next request of a method before it takes effect."""
        hold = Hold()
        with self._lock:
            self._plans.append(Plan(method, hold=hold))
        try:
            yield hold
        finally:
            hold.let_go()

    def hang_up(self) -> None:
        """Close every connection in good order, as for idle ones."""

        def close_all() -> None:
            for writer in self._writers:
                writer.close()

        self._run(close_all)

    def start(self) -> None:
        """Listen, for the first time or again."""
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Stop listening and cut every connection; a second time does nothing."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)

    # --- the server's thread ------------------------------------------------------------------

    def _run(self, what: Callable[[], object]) -> None:
        done = threading.Event()
        self._loop.call_soon_threadsafe(what)
        self._loop.call_soon_threadsafe(done.set)
        assert done.wait(PATIENCE)

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(
            self._serve, LOOPBACK, self._port.number, ssl=self._tls, reuse_address=True
        )

    async def _end(self) -> None:
        if self._server is None:
            return
        # Python 3.11 waits for the connections only if it was asked to before the server is closed.
        closed = asyncio.create_task(self._server.wait_closed())
        await asyncio.sleep(0)
        self._server.close()
        self._server = None
        for writer in self._writers:
            writer.transport.abort()
        # Among them are asyncio's own, each of which waits for the end of a handshake.
        for task in asyncio.all_tasks() - {asyncio.current_task(), closed}:
            task.cancel()
        await closed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        # The client's end of a connection is no failure of the server, nor is our own.
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
            while await self._serve_one(reader, writer, number):
                pass
        writer.transport.abort()
        self._writers.discard(writer)

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        request = await self._read(reader, number)
        with self._lock:
            self.requests.append(request)
            plan = next((one for one in self._plans if one.method == request.method), None)
            if plan is not None:
                self._plans.remove(plan)
        plan = plan or Plan(request.method)
        if plan.hold is not None:
            plan.hold.reached.set()
            await asyncio.to_thread(plan.hold.gone_on.wait, PATIENCE)
        if plan.cut == "before":
            return False
        answer = plan.answer or self._answer(request)
        if plan.hold is not None:
            plan.hold.done.set()
        if plan.cut == "after":
            return False
        writer.write(_encode(answer, chunked=self.chunked))
        await writer.drain()
        return True

    async def _read(self, reader: asyncio.StreamReader, number: int) -> Request:
        method, path, _ = (await reader.readuntil(b"\r\n")).decode().split()
        headers: dict[str, str] = {}
        while line := (await reader.readuntil(b"\r\n")).decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Request(
            method,
            path,
            headers.get("authorization", "").removeprefix("Bearer "),
            headers.get("content-type", ""),
            json.loads(body) if body else {},
            self._loop.time(),
            number,
        )

    def _answer(self, request: Request) -> Answer:
        resource = "events" if request.path.endswith("/events") else "pods"
        verb = {"GET": "get", "PATCH": "patch", "POST": "create"}[request.method]
        with self._lock:
            if request.token not in self._state.tokens:
                return _status(401, "Unauthorized")
            if request.path.endswith("/selfsubjectaccessreviews"):
                return self._review(request.body)
            if (verb, resource) in self._state.denied:
                return _status(403, f'cannot {verb} resource "{resource}"')
            if resource == "events":
                return self._create_event(request.body)
            return self._answer_about_a_pod(request)

    def _answer_about_a_pod(self, request: Request) -> Answer:
        name = request.path.rpartition("/")[2]
        if name not in self._state.pods:
            return _status(404, f'pods "{name}" not found')
        if request.method == "PATCH":
            return self._patch(self._state.pods[name], request)
        return 200, copy.deepcopy(self._state.pods[name]), {}

    def _review(self, body: Document) -> Answer:
        asked = body["spec"]["resourceAttributes"]
        denied = (asked["verb"], asked["resource"]) in self._state.denied
        return 201, {"kind": "SelfSubjectAccessReview", "status": {"allowed": not denied}}, {}

    def _create_event(self, event: Document) -> Answer:
        name = event["metadata"]["name"]
        if name in self._state.events:
            return _status(409, f'events "{name}" already exists')
        self._state.events[name] = event
        return 201, event, {}

    def _patch(self, pod: Document, request: Request) -> Answer:
        assert request.kind == "application/merge-patch+json"
        asked, metadata = request.body.get("metadata", {}), pod["metadata"]
        if asked.get("uid", metadata["uid"]) != metadata["uid"]:
            return _status(422, "metadata.uid: field is immutable")
        version = metadata["resourceVersion"]
        if asked.get("resourceVersion", version) != version:
            return _status(409, "the object has been modified")
        before = copy.deepcopy(pod)
        _merge(pod, request.body)
        if pod != before:  # a patch that changes nothing makes no new version
            self._touch()
        return 200, copy.deepcopy(pod), {}

    def _touch(self) -> None:
        self._state.version += 1
        self._state.pods[POD]["metadata"]["resourceVersion"] = str(self._state.version)


def _merge(target: Document, patch: Document) -> None:
    """Apply a JSON merge patch (RFC 7386)."""
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            _merge(target.setdefault(name, {}), value)
        else:
            target[name] = value


def _status(code: int, message: str) -> Answer:
    return code, {"kind": "Status", "status": "Failure", "message": message, "code": code}, {}


def _encode(answer: Answer, *, chunked: bool) -> bytes:
    status, document, headers = answer
    body = json.dumps(document).encode()
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    lines = (
        f"HTTP/1.1 {status} Status",
        "Content-Type: application/json",
        length,
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    )
    if chunked:
        half = len(body) // 2
        parts = (body[:half], body[half:], b"")
        body = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    return "\r\n".join(lines).encode() + body
