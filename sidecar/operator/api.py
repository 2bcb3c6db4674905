"""The API server by way of `kubernetes`, with plain documents instead of its models.

The models cost memory and refuse what a newer server says; the client underneath them brings the
way in (service account or kubeconfig, tokens that are renewed), connections and TLS. Every request
is bounded, and every write asks the gate directly before it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, ApiException, Configuration

import sidecar
from sidecar.errors import ApiRefused, ConfigError, NoAnswer
from sidecar.kube.access import is_inside
from sidecar.kube.api import NOT_FOUND
from sidecar.operator.names import GROUP, PLURAL, VERSION

_MERGE = "application/merge-patch+json"

_JSON = "application/json"
_JSON_PATCH = "application/json-patch+json"
_LIMIT = 5.0  # seconds for one request
_CONNECTIONS = 8  # at once; each costs memory, and 50 Elections start together
_SHOWN = 300  # characters of what the server says
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1, application/json"
PAGE = 100
"""How many objects of a list are asked for at once."""

Document = dict[str, Any]
Gate = Callable[[], None]


class ApiMeter(Protocol):
    """Who counts requests."""

    def requested(self, verb: str, resource: str, code: str) -> None:
        """One request has been answered (`code` is the status) or not (`code` is "none")."""
        ...


async def configuration() -> Configuration:
    """Return how to reach the API server: as a pod does, else as kubectl does.

    Raises:
        ConfigError: neither is possible.
    """
    found = Configuration()
    try:
        if is_inside(os.environ):
            config.load_incluster_config(found)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                client_configuration=found
            )
    except (config.ConfigException, OSError) as exc:
        raise ConfigError([f"there is no way to the API server: {exc}"]) from exc
    # As in `sidecar.kube.credentials`: the authorities of many clusters lack newer extensions.
    found.disable_strict_ssl_verification = True
    found.connection_pool_maxsize = _CONNECTIONS
    return found


class Api:
    """One client of the API server; an async context manager, for one event loop.

    Args:
        found: what `configuration` returned.
        gate: raises `NotLeader` where a write must not be.
        meter: counts requests.
    """

    def __init__(self, found: Configuration, gate: Gate, meter: ApiMeter) -> None:
        self._configuration = found
        self._gate = gate
        self._meter = meter
        self._client: Any = None
        # Waited for before the gate is asked, and not by the client after it.
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def __aenter__(self) -> Self:
        self._client = ApiClient(self._configuration)
        self._client.user_agent = f"leader-sidecar-operator/{sidecar.__version__}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.close()

    async def get(self, path: str) -> Document:
        """Return an object.

        Raises:
            ApiRefused: it may not be read, or is not there (404).
            NoAnswer: nothing was heard.
        """
        return await self._call("GET", path)

    async def find(self, path: str) -> Document | None:
        """Return an object, or None where there is none."""
        try:
            return await self.get(path)
        except ApiRefused as exc:
            if exc.status == NOT_FOUND:
                return None
            raise

    async def items(self, path: str) -> list[Document]:
        """Return all objects of a collection, as they are now."""
        return [found async for found in self.each(path)]

    async def each(self, path: str, accept: str = _JSON) -> AsyncIterator[Document]:
        """Yield all objects of a collection, `PAGE` of them in memory at once."""
        left = ""
        while True:
            asked = {"limit": str(PAGE)} | ({"continue": left} if left else {})
            page = await self._call("GET", f"{path}?{urlencode(asked)}", accept=accept)
            for found in page.get("items") or ():
                yield found
            left = (page.get("metadata") or {}).get("continue") or ""
            if not left:
                return

    async def uids(self, path: str) -> set[str]:
        """Return the uids of all objects of a collection as it is now, without the objects."""
        return {str(found["metadata"]["uid"]) async for found in self.each(path, _METADATA)}

    async def patch(self, path: str, body: Mapping[str, Any]) -> Document:
        """Apply a merge patch to an object and return what has become of it.

        Raises:
            ApiRefused: 409 at another version, 422 for another object, 404 for none.
            NoAnswer: it may have taken effect, or may yet.
            NotLeader: the gate is closed.
        """
        return await self._call("PATCH", path, body, kind=_MERGE)

    async def patch_json(self, path: str, operations: Sequence[Mapping[str, Any]]) -> Document:
        """Patch an object by operations of RFC 6902; raises as `patch`."""
        return await self._call("PATCH", path, operations, kind=_JSON_PATCH)

    async def create(self, path: str, body: Mapping[str, Any]) -> Document:
        """Add an object to a collection; raises as `patch`, 409 where it is there already."""
        return await self._call("POST", path, body)

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        kind: str = _JSON,
        accept: str = _JSON,
    ) -> Document:
        headers = {"Accept": accept, **({} if body is None else {"Content-Type": kind})}
        url, _, query = path.partition("?")
        resource = _resource(url)
        request = await self._client.param_serialize(
            method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        if query:
            request = (request[0], f"{request[1]}?{query}", *request[2:])
        code = ""
        try:
            async with asyncio.timeout(_LIMIT), self._free:
                if method != "GET":
                    self._gate()
                code = "none"
                response = await self._client.call_api(*request)
                await response.read()
            code = str(response.status)
            return _document(f"{method} {url}", response)
        except TimeoutError as exc:
            raise NoAnswer(f"{method} {url}: no answer in time") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise NoAnswer(f"{method} {url}: {str(exc) or type(exc).__name__}") from exc
        except ApiException as exc:
            code = str(exc.status)
            raise ApiRefused(exc.status, f"{method} {url}: {exc.status} {exc.reason}") from exc
        finally:
            if code:
                self._meter.requested(method.lower(), resource, code)


def election_path(namespace: str, name: str = "", part: str = "") -> str:
    """Return the path of an Election, or of all of a namespace ("": of all namespaces)."""
    return _path(f"/apis/{GROUP}/{VERSION}", namespace, PLURAL, name, part)


def core_path(namespace: str, kind: str, name: str = "") -> str:
    """Return the path of a core object by its plural kind, or of all of a namespace."""
    return _path("/api/v1", namespace, kind, name)


def group_path(group: str, namespace: str, kind: str, name: str = "") -> str:
    """Return the path of an object of another group, such as discovery.k8s.io/v1."""
    return _path(f"/apis/{group}", namespace, kind, name)


def _path(start: str, namespace: str, kind: str, name: str = "", part: str = "") -> str:
    middle = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    parts = [start + middle, kind, quote(name, safe=""), part]
    return "/".join(each for each in parts if each)


def _resource(path: str) -> str:
    """Return the plural kind in a path, and `/status` with it."""
    parts = path.strip("/").split("/")
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if rest[:1] == ["namespaces"] and len(rest) > 2:  # noqa: PLR2004 - its name, and more
        rest = rest[2:]
    return "/".join([rest[0], *rest[2:]]) if rest else ""


def _document(what: str, response: Any) -> Document:
    try:
        found = json.loads(response.data or b"{}")
    except ValueError as exc:
        raise NoAnswer(f"{what}: the answer is not JSON") from exc
    if not isinstance(found, dict):
        raise NoAnswer(f"{what}: the answer is no object")
    if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's successes
        said = str(found.get("message", ""))[:_SHOWN]
        raise ApiRefused(response.status, f"{what}: {response.status} {said}".rstrip())
    return found
