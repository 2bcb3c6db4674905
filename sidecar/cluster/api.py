"""Kubernetes' API for programs that run once in a pod: blocking calls, each with a deadline."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sidecar.errors import ConfigError, SidecarError
from sidecar.kube.access import CA, DIRECTORY, TOKEN

_TRY = 10.0  # seconds
_MERGE = "application/merge-patch+json"
_REASON = 300  # characters
_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}


class ApiError(SidecarError):
    """The API server refused, or did not answer.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
    """

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)

    @property
    def is_forbidden(self) -> bool:
        """Whether a permission is missing."""
        return self.status == HTTPStatus.FORBIDDEN

    @property
    def is_definite(self) -> bool:
        """Whether to ask again is in vain: not so without an answer, and where it says "later"."""
        return (
            HTTPStatus.BAD_REQUEST <= self.status < HTTPStatus.INTERNAL_SERVER_ERROR
            and self.status not in _LATER
        )


@dataclass(frozen=True, slots=True)
class Api:
    """One API server, and who we are to it.

    Attributes:
        url: http:// or https://, without a path.
        token_file: read anew for each call, since it is replaced before it expires.
    """

    url: str
    token_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def in_cluster(cls, environment: Mapping[str, str] = os.environ) -> Api:
        """Return the API server of the cluster that this pod runs in.

        Raises:
            ConfigError: this is no pod, or it has no token.
        """
        host, port = (environment.get(f"KUBERNETES_SERVICE_{n}") for n in ("HOST", "PORT"))
        account = Path(DIRECTORY)
        token = account / TOKEN
        if not host or not port or not token.exists():
            raise ConfigError([f"this is no pod of Kubernetes with a token in {token}"])
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", token, account / CA)

    def get(self, path: str) -> dict[str, Any]:
        """Return an object or a list."""
        return self._call("GET", path)

    def find(self, path: str) -> dict[str, Any] | None:
        """Return an object, or None when there is none."""
        try:
            return self.get(path)
        except ApiError as exc:
            if exc.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def merge(self, path: str, patch: Mapping[str, Any]) -> None:
        """Change an object by a merge patch."""
        self._call("PATCH", path, patch, _MERGE)

    def create(self, path: str, thing: Mapping[str, Any]) -> None:
        """Add an object to a collection."""
        self._call("POST", path, thing)

    def delete(self, path: str, options: Mapping[str, Any]) -> None:
        """Delete an object; one that is gone already, or is another one by now, is as good."""
        try:
            self._call("DELETE", path, options)
        except ApiError as exc:
            if exc.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                raise

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        connection = self._connection()
        try:
            if self.token_file is not None:
                headers["Authorization"] = f"Bearer {self.token_file.read_text().strip()}"
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, headers)
            reply = connection.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as exc:
            raise ApiError(0, f"{method} {path}: {str(exc) or type(exc).__name__}") from exc
        finally:
            connection.close()
        if reply.status >= HTTPStatus.BAD_REQUEST:
            raise ApiError(reply.status, f"{method} {path}: {_reason(reply.status, text)}")
        answer = json.loads(text)
        return answer if isinstance(answer, dict) else {}

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None  # noqa: S101 - so it was made
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TRY)
        context = ssl.create_default_context(cafile=self.ca_file)
        return http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=_TRY, context=context
        )


def _reason(status: int, text: bytes) -> str:
    """Say why, as the API server did; what is missing in a Role stands in there."""
    try:
        message = str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace")
    return f"{status} {message[:_REASON]}"
