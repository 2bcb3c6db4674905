"""What is written into etcd, as JSON; decoding forgives what it does not know.

Unknown fields are ignored and missing ones have defaults, so that an older Master reads what a
newer one wrote. What is no such record at all decodes to None and never raises.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_RATE = 1.0


@dataclass(frozen=True, slots=True)
class Spec:
    """What to crawl.

    Attributes:
        urls: where crawling begins.
        depth: links away from them, on the same host.
        rate: requests per second at most.
    """

    name: str
    urls: tuple[str, ...] = ()
    depth: int = 0
    rate: float = DEFAULT_RATE


@dataclass(frozen=True, slots=True)
class Resource:
    """The value of a resource's key.

    Attributes:
        worker: who crawls it; "" while it waits for a Worker.
        request_id: of the request that added it.
        token: the fencing token of the term in which this was written.
    """

    spec: Spec
    worker: str = ""
    request_id: str = ""
    token: int = 0

    def encode(self) -> bytes:
        """Return the value for etcd."""
        return _json(
            _spec_json(self.spec)
            | {"worker": self.worker, "request_id": self.request_id, "token": self.token}
        )

    @classmethod
    def decode(cls, value: bytes) -> Resource | None:
        """Return the record in a value; None when there is none."""
        document = _object(value)
        spec = None if document is None else _spec(document)
        if document is None or spec is None:
            return None
        return cls(
            spec,
            _text(document, "worker"),
            _text(document, "request_id"),
            _whole(document, "token"),
        )


@dataclass(frozen=True, slots=True)
class Deletion:
    """The value of a deleted resource's mark.

    Attributes:
        request_id: of the request that had added it.
        token: the fencing token of the term in which it was deleted.
    """

    name: str
    request_id: str
    token: int

    def encode(self) -> bytes:
        """Return the value for etcd."""
        return _json({"name": self.name, "request_id": self.request_id, "token": self.token})

    @classmethod
    def decode(cls, value: bytes) -> Deletion | None:
        """Return the record in a value; None when there is none."""
        document = _object(value)
        if document is None or not _text(document, "name"):
            return None
        request_id, token = _text(document, "request_id"), _whole(document, "token")
        return cls(_text(document, "name"), request_id, token)


@dataclass(frozen=True, slots=True)
class Assignment:
    """The value of an assignment's key: all that a Worker needs.

    Attributes:
        worker: for whom it is; a Worker acts on nothing that names another.
        token: the fencing token of the term in which this was written.
    """

    spec: Spec
    worker: str
    token: int = 0

    def encode(self) -> bytes:
        """Return the value for etcd."""
        return _json(_spec_json(self.spec) | {"worker": self.worker, "token": self.token})

    @classmethod
    def decode(cls, value: bytes) -> Assignment | None:
        """Return the record in a value; None when there is none."""
        document = _object(value)
        spec = None if document is None else _spec(document)
        if document is None or spec is None:
            return None
        return cls(spec, _text(document, "worker"), _whole(document, "token"))


@dataclass(frozen=True, slots=True)
class Page:
    """One page that a Worker fetched; `status` 0 where there was no answer, `error` says why."""

    url: str
    status: int
    size: int = 0
    title: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """The value of a resource's results: a counter, and the last pages, oldest first."""

    name: str
    worker: str
    fetched: int = 0
    pages: tuple[Page, ...] = ()

    def encode(self) -> bytes:
        """Return the value for etcd."""
        return _json(
            {
                "name": self.name,
                "worker": self.worker,
                "fetched": self.fetched,
                "pages": [
                    {
                        "url": page.url,
                        "status": page.status,
                        "size": page.size,
                        "title": page.title,
                        "error": page.error,
                    }
                    for page in self.pages
                ],
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Results | None:
        """Return the record in a value; None when there is none."""
        document = _object(value)
        if document is None or not _text(document, "name"):
            return None
        listed = document.get("pages")
        pages = tuple(
            Page(
                _text(page, "url"),
                _whole(page, "status"),
                _whole(page, "size"),
                _text(page, "title"),
                _text(page, "error"),
            )
            for page in (listed if isinstance(listed, list) else ())
            if isinstance(page, dict)
        )
        fetched = _whole(document, "fetched")
        return cls(_text(document, "name"), _text(document, "worker"), fetched, pages)


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node of a service: the value of a registry key, in go-micro's layout."""

    service: str
    id: str
    address: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()
    version: str = "latest"

    def encode(self) -> bytes:
        """Return the value for etcd."""
        return _json(
            {
                "name": self.service,
                "version": self.version,
                "metadata": None,
                "endpoints": [
                    {"name": name, "request": None, "response": None, "metadata": {}}
                    for name in self.endpoints
                ],
                "nodes": [
                    {"id": self.id, "address": self.address, "metadata": dict(self.metadata)}
                ],
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Node | None:
        """Return the first node in a value; None when there is none."""
        document = _object(value)
        nodes = document.get("nodes") if document is not None else None
        if document is None or not isinstance(nodes, list) or not nodes:
            return None
        node = nodes[0]
        if not isinstance(node, dict) or not _text(node, "id"):
            return None
        metadata, endpoints = node.get("metadata"), document.get("endpoints")
        return cls(
            service=_text(document, "name"),
            id=_text(node, "id"),
            address=_text(node, "address"),
            metadata={str(k): str(v) for k, v in metadata.items()}
            if isinstance(metadata, dict)
            else {},
            endpoints=tuple(
                _text(endpoint, "name")
                for endpoint in (endpoints if isinstance(endpoints, list) else ())
                if isinstance(endpoint, dict)
            ),
            version=_text(document, "version"),
        )


def _spec_json(spec: Spec) -> dict[str, object]:
    return {"name": spec.name, "urls": list(spec.urls), "depth": spec.depth, "rate": spec.rate}


def _spec(document: Mapping[str, object]) -> Spec | None:
    name, urls, rate = _text(document, "name"), document.get("urls"), document.get("rate")
    if not name or not isinstance(urls, list):
        return None
    return Spec(
        name,
        tuple(url for url in urls if isinstance(url, str)),
        _whole(document, "depth"),
        _rate(rate),
    )


def _rate(value: object) -> float:
    is_rate = isinstance(value, int | float) and 0 < value < math.inf
    return float(value) if is_rate and isinstance(value, int | float) else DEFAULT_RATE


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _object(value: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _text(document: Mapping[str, object], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _whole(document: Mapping[str, object], name: str) -> int:
    value = document.get(name)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return value if is_whole and isinstance(value, int) and value >= 0 else 0
