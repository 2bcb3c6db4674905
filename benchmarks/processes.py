"""Child programs that are spoken to through pipes, and sidecars; all gone at the end.

Nothing here polls while something is measured: a look every few milliseconds would cost the
measured programs their processor.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.procs import Child, inherited_environment

Event = dict[str, Any]

WITHIN = 30.0
"""Seconds to wait for an event; a bound for a slow machine, not an expectation."""

_CHUNK = 1 << 16
_GO_AWAY = 5.0


class BenchError(RuntimeError):
    """Something did not happen in time, or a program failed: this bench has no figure."""


class Speaker:
    """A program with commands on stdin and JSON lines on stdout; the end of stdin ends it.

    It starts no programs of its own, so with it everything is gone.
    """

    def __init__(self, argv: Sequence[str | Path], *, name: str, folder: Path) -> None:
        """Start it; `folder` takes NAME.err."""
        self.name = name
        self._log = folder / f"{name}.err"
        self._events: list[Event] = []
        self._left = b""
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(argument) for argument in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=inherited_environment(),
                cwd=Path(__file__).resolve().parents[1],
                start_new_session=True,  # Ctrl-C at the terminal is ours alone
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Its process id; nobody else gets it before `close`."""
        return self._process.pid

    def send(self, line: str) -> None:
        """Give one command.

        Raises:
            BenchError: it has ended.
        """
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as exc:
            raise self._failure("has ended") from exc

    def event(self, name: str, within: float = WITHIN) -> Event:
        """Return the next event of this name; those of other names stay for later.

        Raises:
            BenchError: it ended, told an error, or took too long.
        """
        return first_event([self], name, within)[1]

    def kill(self) -> int:
        """SIGKILL it; return the monotonic nanoseconds just before."""
        at = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        self._process.kill()
        self._process.wait()
        return at

    def close(self) -> None:
        """Close its stdin, and kill it when it does not end by itself."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_GO_AWAY)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def take(self, name: str) -> Event | None:
        """Return a told event of this name, if there is one.

        Raises:
            BenchError: it told an error.
        """
        for event in self._events:
            if event["event"] == "error":
                raise self._failure(f"says {event}")
        found = next((event for event in self._events if event["event"] == name), None)
        if found is not None:
            self._events.remove(found)
        return found

    def read(self) -> None:
        """Take in what it has written; blocks when that is nothing.

        Raises:
            BenchError: it has ended.
        """
        chunk = os.read(self.fileno(), _CHUNK)
        if not chunk:
            raise self._failure("has ended")
        *lines, self._left = (self._left + chunk).split(b"\n")
        self._events.extend(json.loads(line) for line in lines)

    def fileno(self) -> int:
        """Return what can be selected on."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        return self._process.stdout.fileno()

    def _failure(self, what: str) -> BenchError:
        last = "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])
        return BenchError(f"{self.name} {what}\n{last}".rstrip())


def first_event(
    speakers: Sequence[Speaker], name: str, within: float = WITHIN
) -> tuple[Speaker, Event]:
    """Return the first event of this name that any of them tells, and who.

    Raises:
        BenchError: one of them failed, or nobody told it within `within` seconds.
    """
    deadline = time.monotonic() + within
    with selectors.DefaultSelector() as selector:
        for speaker in speakers:
            selector.register(speaker, selectors.EVENT_READ, speaker)
        while True:
            for speaker in speakers:
                event = speaker.take(name)
                if event is not None:
                    return speaker, event
            ready = selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                who = ", ".join(speaker.name for speaker in speakers)
                raise BenchError(f"no {name!r} of {who} within {within:g} s")
            for key, _ in ready:
                key.data.read()


def stamp(event: Event, which: str = "t") -> int:
    """Return a stamp of an event in monotonic nanoseconds."""
    return int(event[which]["monotonic_ns"])


def python(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of our child programs."""
    return [sys.executable, "-m", f"benchmarks.{module}", *arguments]


class Sidecar:
    """One `leader-sidecar run` with a status directory of its own."""

    def __init__(
        self,
        name: str,
        *,
        election: str,
        endpoints: str,
        folder: Path,
        options: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.status_dir = folder / name
        command = [sys.executable, "-m", "sidecar", "run"]
        command += ["--election", election, "--id", name, "--advertise", "127.0.0.1:9090"]
        command += ["--endpoints", endpoints, "--http", "127.0.0.1:0"]
        command += ["--status-dir", str(self.status_dir), *options]
        self.child = Child(command, name=name, folder=folder)

    def __enter__(self) -> Self:
        self.child.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.child.close()

    def status(self) -> dict[str, Any]:
        """Return what its status file says; {} while there is none."""
        with suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads((self.status_dir / "status.json").read_text())
            return found
        return {}
