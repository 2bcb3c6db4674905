"""Which pod this is, and where the API server and the service account's files are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where Kubernetes mounts a service account's files, unless told otherwise."""

TOKEN, CA, NAMESPACE = "token", "ca.crt", "namespace"

HOST, PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"

# Names go into paths of URLs. The API server is stricter; this keeps anything else out.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_HOST = re.compile(r"[A-Za-z0-9:.-]{1,253}")
_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PodAccess:
    """The own pod and the way to it.

    Attributes:
        uid: of the pod, or "" where nobody told it; then whichever is found first is ours.
        host: of the API server, a name or an address.
        directory: with the service account's files `token` and `ca.crt`.
    """

    name: str
    namespace: str
    uid: str
    host: str
    port: int
    directory: Path


def is_inside(environment: Mapping[str, str]) -> bool:
    """Whether this process runs in Kubernetes."""
    return bool(environment.get(HOST))


def find(environment: Mapping[str, str], directory: Path) -> tuple[PodAccess | None, list[str]]:
    """Return the access, or None and all that is missing for it, one sentence each."""
    missing: list[str] = []

    def name(text: str, what: str, field: str) -> str:
        if _NAME.fullmatch(text) is None:
            said = f"is {text[:80]!r}, which no pod can have" if text else "is not set"
            missing.append(f"{what} {said}; set it from the field {field}")
        return text

    host, port = environment.get(HOST, ""), environment.get(PORT, "")
    if _HOST.fullmatch(host) is None or not _is_port(port):
        missing.append(f"{HOST} and {PORT} do not tell where the API server is; only pods have one")
    missing += [
        f"{str(path)!r} cannot be read ({problem}); mount the service account's token there"
        for path in (directory / TOKEN, directory / CA)
        if (problem := _unreadable(path))
    ]
    access = PodAccess(
        name=name(environment.get("POD_NAME", ""), "POD_NAME", "metadata.name"),
        namespace=name(_namespace(environment, directory), "POD_NAMESPACE", "metadata.namespace"),
        uid=environment.get("POD_UID", ""),
        host=host,
        port=int(port) if _is_port(port) else 0,
        directory=directory,
    )
    return (None if missing else access), missing


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= _HIGHEST_PORT


def _namespace(environment: Mapping[str, str], directory: Path) -> str:
    told = environment.get("POD_NAMESPACE", "")
    if told:
        return told
    try:
        return (directory / NAMESPACE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return "" if file.read(1) else "it is empty"
    except OSError as exc:
        return exc.strerror or str(exc)
