"""The service account's files, read anew whenever the kubelet has replaced them.

A token lives for an hour or so, and the kubelet writes the next one well before its end: into a new
directory, to which it moves a symbolic link. So a look at the file's status tells a new one.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from sidecar.kube.access import CA, TOKEN

_Seen = tuple[int, int, int, int]


class ServiceAccount:
    """The token to show and the authority to trust."""

    def __init__(self, directory: Path) -> None:
        self._token_file = directory / TOKEN
        self._ca_file = directory / CA
        self._token, self._token_seen = "", (0, 0, 0, 0)
        self._tls: ssl.SSLContext | None = None
        self._ca_seen: _Seen = (0, 0, 0, 0)

    def token(self, *, anew: bool = False) -> str:
        """Return the token as it is in the file now; with `anew` whatever the file's status says.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no token.
        """
        seen = _status(self._token_file)
        if anew or seen != self._token_seen:
            self._token = _read_token(self._token_file)
            self._token_seen = seen
        return self._token

    def tls(self) -> ssl.SSLContext:
        """Return what to connect with.

        Raises:
            OSError: the authority's certificates cannot be read, or used (`ssl.SSLError`).
        """
        seen = _status(self._ca_file)
        if self._tls is None or seen != self._ca_seen:
            self._tls = _context(self._ca_file)
            self._ca_seen = seen
        return self._tls


def _status(path: Path) -> _Seen:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _read_token(path: Path) -> str:
    text = path.read_text(encoding="ascii").strip()
    if not text or not text.isprintable():
        raise ValueError(f"{str(path)!r} holds no token")
    return text


def _context(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    # Python 3.13 and later also ask for extensions of RFC 5280 that the authorities of many
    # clusters lack (python/cpython#107361, tomplus/kubernetes_asyncio#349). Signatures, names and
    # dates are verified all the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
