"""Three places that know who leads: a status directory, a sidecar's HTTP port, etcd itself.

Each yields status documents as in `status.json`: the present one at once, then one per change. Seen
from etcd there is no own role, and whether the leader still acts is known only to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from sidecar import boottime
from sidecar.addresses import parse_url
from sidecar.cli.reaching import out_of_reach, reached
from sidecar.client import Leadership
from sidecar.errors import ConfigError, SidecarError, Unavailable
from sidecar.outputs.status_dir import has_writer
from sidecar.settings import StoreSettings

Document = dict[str, Any]
_PATIENCE = 5.0
_LOOK_FOR_WRITER = 1.0  # seconds


class NoAnswer(SidecarError):
    """The sidecar that was asked does not answer."""


class Source(Protocol):
    """Somebody to ask."""

    def documents(self) -> AsyncIterator[Document]:
        """Yield what is true now, then the latest after each change."""
        ...


class DirectorySource:
    """The status directory of a sidecar on this machine."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    async def documents(self) -> AsyncIterator[Document]:
        """Yield the status file as it is to be believed at this moment."""
        leadership = Leadership(self._directory)
        while True:
            is_written = has_writer(self._directory)
            document = self._read()
            yield document if is_written else _left_behind(document)
            # A sidecar that is killed writes nothing more: there is no event of that.
            while has_writer(self._directory) is is_written:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_FOR_WRITER):
                        await leadership.changed()
                        break

    def _read(self) -> Document:
        path = f"{self._directory}/status.json"
        document, problem = boottime.read_status(path)
        if problem == "missing":
            raise NoAnswer(f"there is no {path}; is a sidecar running, and is this its directory?")
        if problem is None or problem == "expired":
            if problem is not None:
                document = {**document, "role": "follower", "reason": "deadline_passed"}
                document.pop("token", None)
                document.pop("key", None)
            return document
        raise NoAnswer(f"{path} cannot be believed: {problem.replace('_', ' ')}")


def _left_behind(document: Document) -> Document:
    """Return what is still true of a status whose sidecar is gone: not how it stands with etcd."""
    is_leader = document["role"] == "leader"  # nobody else may act before its claim has run out
    return {**document, "link": "lost", "leader": document.get("leader") if is_leader else None}


class UrlSource:
    """A sidecar's HTTP port."""

    def __init__(self, url: str) -> None:
        try:
            self._target = parse_url(url)
        except ValueError as exc:
            raise ConfigError([f"--url: {url!r} is no address; write http://HOST:PORT"]) from exc
        self._url = url.rstrip("/")

    async def documents(self) -> AsyncIterator[Document]:
        """Yield the documents of `/events`, read by hand: one GET, lines of "data: …"."""
        target = self._target
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = await asyncio.open_connection(
                    target.where.host, target.where.port, ssl=target.is_secure or None
                )
                path = target.path.partition("?")[0].rstrip("/")
                writer.write(
                    f"GET {path}/events HTTP/1.1\r\nHost: {target.authority}\r\n"
                    "Accept: text/event-stream\r\nConnection: close\r\n\r\n".encode()
                )
                status = await reader.readline()
        except OSError as exc:
            raise NoAnswer(f"no sidecar answers at {self._url}: {_plainly(exc)}") from exc
        if b" 200 " not in status:
            writer.close()
            raise NoAnswer(f"{self._url} is no sidecar: {status.decode(errors='replace').strip()}")
        try:
            async for line in reader:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        except OSError as exc:
            raise NoAnswer(f"the sidecar at {self._url} ended: {_plainly(exc)}") from exc
        finally:
            writer.close()
        raise NoAnswer(f"the sidecar at {self._url} ended")


class EtcdSource:
    """etcd itself."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    async def documents(self) -> AsyncIterator[Document]:
        """Yield what the queue shows."""
        # Here, because the other sources do without.
        from sidecar.election.observer import Observer  # noqa: PLC0415

        async with (
            reached(self._settings) as etcd,
            Observer(etcd, self._settings.election) as observer,
        ):
            try:
                async with asyncio.timeout(_PATIENCE):
                    await observer.looked()
            except TimeoutError as exc:
                why = observer.trouble or "no answer in time"
                raise Unavailable(out_of_reach(self._settings, why)) from exc
            async for leader in observer.observe():
                yield {
                    "version": 1,
                    "election": self._settings.election,
                    "leader": None if leader is None else dataclasses.asdict(leader),
                    "candidates": [entry.proposal.id for entry in observer.replica.entries],
                    "paused": observer.replica.is_paused,
                }


def _plainly(error: OSError) -> str:
    """Say why a connection failed, without numbers and names of the library's own."""
    if isinstance(error, socket.gaierror):
        is_unknown = error.errno == socket.EAI_NONAME
        return "its name has no address" if is_unknown else str(error.strerror).lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted, {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed, {error.reason.replace('_', ' ').lower()}"
    # For a name with several addresses asyncio raises all errors in one, as a text.
    number = error.errno or next(map(int, re.findall(r"\[Errno (\d+)\]", str(error))), 0)
    return os.strerror(number).lower() if number else "no answer in time"


def choose(settings: Mapping[str, str], *, status_dir: str | None, url: str | None) -> Source:
    """Return the source that the options ask for: a URL, etcd, or else a directory.

    Raises:
        ConfigError: more than one was asked for, or one is incomplete.
    """
    if url is not None:
        if settings or status_dir:
            raise ConfigError(["--url: give either --url, --status-dir, or --endpoints"])
        return UrlSource(url)
    if settings and status_dir:
        raise ConfigError(["--status-dir: give either --url, --status-dir, or --endpoints"])
    if "endpoints" in settings or "election" in settings:
        return EtcdSource(StoreSettings.read(settings))
    return DirectorySource(status_dir or boottime.DEFAULT_STATUS_DIR)
