"""The few requests that a sidecar makes of the API server, and what their answers mean.

Each may arrive twice: a patch names the version it is for, an Event has a name of its own, the rest
only asks. None is bounded here; the caller's `asyncio.timeout` is.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import sidecar
from sidecar.errors import ApiRefused, NoAnswer
from sidecar.kube.access import PodAccess
from sidecar.kube.credentials import ServiceAccount
from sidecar.kube.http import Answer, Connection
from sidecar.kube.marks import Pod

UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT = 401, 403, 404, 409
INVALID, THROTTLED = 422, 429
_SUCCESS = range(200, 300)
_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"
# A pod's specification and status are of no interest. Without support for it, the whole comes.
_METADATA = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
_SHOWN = 300  # characters of what the server says
_LONGEST_WAIT = 30.0  # seconds of Retry-After that are believed


class ApiServer:
    """The API server as seen from one pod, over one connection. One request at a time."""

    def __init__(self, access: PodAccess) -> None:
        self._access = access
        self._account = ServiceAccount(access.directory)
        self._connection = Connection(access.host, access.port, self._account.tls)
        namespace = f"/api/v1/namespaces/{quote(access.namespace, safe='')}"
        self._pod = f"{namespace}/pods/{quote(access.name, safe='')}"
        self._events = f"{namespace}/events"

    async def read_pod(self) -> Pod:
        """Return the own pod as it is now, not as some cache remembers it.

        Raises:
            ApiRefused: it may not be read, or is not there.
            NoAnswer: nothing was heard.
        """
        return _pod(await self._call("get pods", "GET", self._pod, accept=_METADATA))

    async def patch_pod(self, patch: dict[str, Any]) -> Pod:
        """Apply a merge patch to the own pod and return what has become of it.

        Raises:
            ApiRefused: 409 when the pod is at another version, 422 when it is another pod.
            NoAnswer: it may have taken effect, or may yet.
        """
        answer = await self._call(
            "patch pods", "PATCH", self._pod, patch, kind=_MERGE_PATCH, accept=_METADATA
        )
        return _pod(answer)

    async def create_event(self, event: dict[str, Any]) -> None:
        """Create an Event; one of that name that exists already is this one.

        Raises:
            ApiRefused: it is not taken.
            NoAnswer: it may be there, or not.
        """
        try:
            await self._call("create events", "POST", self._events, event)
        except ApiRefused as exc:
            if exc.status != CONFLICT:
                raise

    async def may(self, verb: str, resource: str, name: str = "") -> bool:
        """Ask whether the service account may do something in the own namespace.

        Raises:
            ApiRefused: it may not even ask.
            NoAnswer: nothing was heard.
        """
        attributes = {"namespace": self._access.namespace, "verb": verb, "resource": resource}
        if name:
            attributes["name"] = name
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._call("create selfsubjectaccessreviews", "POST", path, review)
        document = _document(answer)
        return isinstance(document, dict) and bool(document.get("status", {}).get("allowed"))

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    async def _call(
        self,
        what: str,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        kind: str = _JSON,
        accept: str = _JSON,
    ) -> Answer:
        """Send one request; with a new token once more, where the first was not accepted."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1",
            f"Host: {self._connection.authority}",
            f"User-Agent: leader-sidecar/{sidecar.__version__}",
            f"Accept: {accept}",
            *((f"Content-Type: {kind}", f"Content-Length: {len(content)}") if content else ()),
        )
        try:
            token = self._account.token()
            answer = await self._send(head, token, content)
            if answer.status == UNAUTHORIZED and self._account.token(anew=True) != token:
                answer = await self._send(head, self._account.token(), content)
        except (OSError, ValueError) as exc:  # the token cannot be read
            raise NoAnswer(f"{what}: {exc}") from exc
        if answer.status not in _SUCCESS:
            raise _refusal(what, answer)
        return answer

    async def _send(self, head: tuple[str, ...], token: str, content: bytes) -> Answer:
        lines = (*head, f"Authorization: Bearer {token}", "", "")
        return await self._connection.send("\r\n".join(lines).encode() + content)


def _pod(answer: Answer) -> Pod:
    try:
        return Pod.read(_document(answer))
    except ValueError as exc:
        raise NoAnswer(str(exc)) from exc


def _document(answer: Answer) -> Any:
    try:
        return answer.document()
    except ValueError as exc:
        raise NoAnswer("the answer is not JSON") from exc


def _refusal(what: str, answer: Answer) -> ApiRefused:
    said = ""
    try:
        document = answer.document()
        if isinstance(document, dict) and document.get("kind") == "Status":
            said = f": {document.get('message', '')}"[:_SHOWN]
    except ValueError:
        pass  # a proxy's page: the status says enough
    message = f"{what}: {answer.status} {answer.phrase}".rstrip() + said
    return ApiRefused(answer.status, message, _retry_after(answer.headers.get("retry-after", "")))


def _retry_after(text: str) -> float | None:
    # The API server gives seconds; a date, as a proxy may, counts as nothing.
    is_seconds = text.isascii() and text.isdigit()
    return min(float(text), _LONGEST_WAIT) if is_seconds else None
