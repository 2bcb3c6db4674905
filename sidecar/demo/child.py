"""One child process, which never outlives us and writes its output to a file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import sidecar
from sidecar.demo import bound

_SETTINGS = ("ETCD", "LEADER_SIDECAR_", "KUBERNETES_SERVICE_")
_TAIL = 3  # lines


class Child:
    """A program that is started, signalled, and gone at the end."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path) -> None:
        """Describe it; its output goes to NAME.log in the folder."""
        self.name = name
        self._argv = [*argv]
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.is_frozen = False
        self.is_wanted = False
        """Whether it is meant to run: false before `start`, and once we ended it."""

    @property
    def is_running(self) -> bool:
        """Whether the process exists; a frozen one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id of the last start, None before the first."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it (again).

        In a session of its own: Ctrl-C in the terminal is for the demo alone.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own programs
                [sys.executable, "-I", "-S", bound.__file__, str(os.getpid()), *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                cwd=Path(sidecar.__file__).parent.parent,  # where `-m sidecar` finds this one
                start_new_session=True,
            )
        self.is_frozen, self.is_wanted = False, True

    async def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self._end(signal.SIGTERM)
        await self._ended()

    async def kill(self) -> None:
        """Send SIGKILL and wait for the end."""
        self._end(signal.SIGKILL)
        await self._ended()

    def freeze(self) -> None:
        """Send SIGSTOP."""
        self.is_frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Send SIGCONT."""
        self.is_frozen = False
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the process without ceremony and wait until it is gone."""
        if self._process is not None:
            self._end(signal.SIGKILL)
            self._process.wait()

    def last_words(self) -> str:
        """Return the end of what it wrote, in one line."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return " | ".join(lines[-_TAIL:]) or "it said nothing"

    def _end(self, number: signal.Signals) -> None:
        self.is_wanted = False
        self._signal(number)
        self.is_frozen = False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    async def _ended(self) -> None:
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)


def _environment() -> dict[str, str]:
    """Return ours without what would be a setting of etcd or of the sidecars."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
