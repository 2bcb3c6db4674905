"""Probes of the program beside the sidecar, and the loop that feeds them to the health gate.

Three kinds, after those of Kubernetes: an HTTP GET is good for status 200 to 399 (redirects are
not followed), a command for exit code 0, a TCP connection for being accepted. A probe has one
second, or the interval where that is shorter. What to make of the results is decided in
`sidecar.core.health`; this module steps nobody down.

Over https the certificate is not verified, as the kubelet does not: the other end is a neighbour
in the same pod, most often with a certificate of its own making, and what is asked is whether it
answers, not who it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import sidecar
from sidecar.addresses import HostPort, HttpTarget
from sidecar.core.health import Health, HealthGate
from sidecar.election.ports import Clock

logger = logging.getLogger(__name__)

LONGEST_PROBE = 1.0
"""Seconds that a probe may take at the most."""

_REAP_WITHIN = 1.0  # seconds for a killed command to disappear
_LINE_LIMIT = 4096  # bytes of a status line
_GOOD_STATUS = range(200, 400)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe found; `detail` is a phrase for the log."""

    is_good: bool
    detail: str


class Probe(Protocol):
    """A way to ask a program how it is."""

    async def ask(self) -> ProbeResult:
        """Ask once. May raise `OSError` or `ValueError`, which count as a bad answer."""
        ...


def probe_from(
    *, http: HttpTarget | None, command: Sequence[str] | None, tcp: HostPort | None
) -> Probe | None:
    """Return the probe that the settings ask for, or None."""
    if http is not None:
        return HttpProbe(http)
    if command is not None:
        return ExecProbe(command)
    return None if tcp is None else TcpProbe(tcp)


async def run(
    gate: HealthGate,
    probe: Probe,
    *,
    interval: float,
    clock: Clock,
    on_change: Callable[[HealthGate, str], None],
) -> None:
    """Probe every `interval` seconds, the first time at once, until cancelled.

    `on_change` gets the gate after each change of its health, and what the last probe said. It must
    return at once. Probes start at even distances, those missed while we stood still are dropped.
    """
    loop = asyncio.get_running_loop()
    next_at = loop.time()
    while True:
        result = await ask_within(probe, min(LONGEST_PROBE, interval))
        before, gate = gate, gate.after(is_good=result.is_good, now=clock.now())
        logger.debug(
            "probed health=%s good=%s detail=%r", gate.health, result.is_good, result.detail
        )
        _log_change(before, gate, result.detail)
        if gate.health is not before.health:
            on_change(gate, result.detail)
        next_at = max(next_at + interval, loop.time())
        await asyncio.sleep(next_at - loop.time())


async def ask_within(probe: Probe, limit: float) -> ProbeResult:
    """Ask once and turn whatever goes wrong, silence included, into a bad result."""
    try:
        async with asyncio.timeout(limit):
            return await probe.ask()
    except TimeoutError:
        return ProbeResult(is_good=False, detail=f"no answer within {limit:g} s")
    except (OSError, ValueError, EOFError) as exc:
        return ProbeResult(is_good=False, detail=str(exc) or type(exc).__name__)


def _log_change(before: HealthGate, gate: HealthGate, detail: str) -> None:
    if gate.health is before.health:
        if gate.health is Health.NEVER_HEALTHY and gate.row == -gate.failures:
            logger.warning("program is not healthy yet failures=%d detail=%r", -gate.row, detail)
    elif gate.health is Health.UNHEALTHY:
        message = "program is unhealthy failures=%d stands_back_s=%g detail=%r"
        logger.warning(message, -gate.row, gate.wait, detail)
    else:
        logger.info("program is healthy detail=%r", detail)


class HttpProbe:
    """A GET that wants a status from 200 to 399."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target
        self._resolver = _Resolver(target.where)
        self._tls = _unverified() if target.is_secure else None

    async def ask(self) -> ProbeResult:
        """Send the request, read the status line, hang up."""
        reader, writer = await self._resolver.connect(self._tls)
        try:
            writer.write(self._request())
            status = _status(await reader.readline())
        finally:
            writer.transport.abort()
        return ProbeResult(is_good=status in _GOOD_STATUS, detail=f"HTTP status {status}")

    def _request(self) -> bytes:
        lines = (
            f"GET {self._target.path} HTTP/1.1",
            f"Host: {self._target.authority}",
            f"User-Agent: leader-sidecar/{sidecar.__version__}",
            "Accept: */*",
            "Connection: close",
        )
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


class TcpProbe:
    """A connection that wants to be accepted."""

    def __init__(self, target: HostPort) -> None:
        self._resolver = _Resolver(target)

    async def ask(self) -> ProbeResult:
        """Connect and hang up."""
        _, writer = await self._resolver.connect(None)
        writer.transport.abort()
        return ProbeResult(is_good=True, detail="connected")


class ExecProbe:
    """A command that wants to exit with 0. No shell is involved, and its output is dropped.

    It runs in a process group of its own, which is killed when the command takes too long.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def ask(self) -> ProbeResult:
        """Run the command once."""
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=null, stdout=null, stderr=null, start_new_session=True
        )
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _kill_group(process)
        ended = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        return ProbeResult(is_good=code == 0, detail=ended)


async def _kill_group(process: asyncio.subprocess.Process) -> None:
    # The group outlives its leader only if it has other members; else there is nothing to kill.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # Bounded: a process stuck in the kernel must not stop the probing, init gets it later.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REAP_WITHIN):
            await process.wait()


class _Resolver:
    """Connects to one host, whose name is looked up anew each time.

    Lookups have one thread of their own: a name server that is silent for many seconds would
    otherwise take one thread of the common pool with every probe, until a write of the status
    file found none.
    """

    def __init__(self, target: HostPort) -> None:
        self._target = target
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="health-lookup")

    async def connect(
        self, tls: ssl.SSLContext | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first of the host's addresses that accepts.

        Raises:
            OSError: the name is unknown, or no address accepted.
        """
        host, port = self._target.host, self._target.port
        infos = await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        failure: OSError | None = None
        for address in dict.fromkeys(str(info[4][0]) for info in infos):
            try:
                return await asyncio.open_connection(
                    address, port, ssl=tls, server_hostname=host if tls else None, limit=_LINE_LIMIT
                )
            except OSError as exc:
                failure = exc
        raise failure or OSError(f"{host} has no address")


def _status(line: bytes) -> int:
    """Return the status of a response's first line.

    Raises:
        ValueError: it is not HTTP.
    """
    version, _, rest = line.rstrip(b"\r\n").partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit() or rest[3:4] not in (b"", b" "):
        raise ValueError("the answer is not HTTP" if line else "hung up without an answer")
    return int(code)


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
