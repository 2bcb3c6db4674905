"""podman with settings, images and networks of its own: nothing of the machine is touched."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.binaries import cache_folder

PACKAGES = ("podman", "runc", "netavark", "aardvark-dns", "debootstrap", "iptables")
"""The Debian packages that a cluster on this machine needs; each has a program of its name."""
_HELPERS = ("/usr/sbin", "/sbin", "/usr/lib/podman", "/usr/libexec/podman")
NAME = "leader-sidecar-e2e"
"""Of the cluster and of its network."""
LONG = 1800.0  # seconds; a bound for a slow machine, not an expectation


class UnfitMachineError(RuntimeError):
    """No cluster can be had on this machine; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the settings are, and what every call of podman and kind has in its environment."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *arguments: str | Path, stdin: str | None = None, timeout: float = LONG) -> str:
        """Run podman and return what it printed.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        return run(("podman", *arguments), self.environment, stdin=stdin, timeout=timeout)

    def has_image(self, name: str) -> bool:
        """Return whether an image is there."""
        asked = subprocess.run(
            ["podman", "image", "exists", name], env=self.environment, timeout=60, check=False
        )
        return asked.returncode == 0


def engine() -> Engine:
    """Write podman's settings into the cache and return it.

    Raises:
        UnfitMachineError: podman or another package is missing, or we are not root.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), *_HELPERS))
    missing = [name for name in PACKAGES if shutil.which(name, path=path) is None]
    if missing:
        raise UnfitMachineError(f"not installed: apt-get install {' '.join(missing)}")
    if os.geteuid() != 0:
        raise UnfitMachineError("the nodes of a cluster are privileged containers: run it as root")
    folder = cache_folder() / "engine"
    folder.mkdir(parents=True, exist_ok=True)
    state = Path("/run") / f"leader-sidecar-{hashlib.sha256(bytes(folder)).hexdigest()[:8]}"
    (folder / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{state}"\n'
    )
    # podman's own limits are refused where a process may not raise its limits that far.
    files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1 << 20)
    (folder / "containers.conf").write_text(
        f"""[containers]
default_ulimits = ["nofile={files}:{files}", "nproc={files}:{files}"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
events_logger = "file"
cgroup_manager = "cgroupfs"
tmp_dir = "{state}/engine"
volume_path = "{folder}/volumes"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
"""
    )
    (folder / "networks").mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "KIND_EXPERIMENTAL_PROVIDER": "podman",
        "KIND_EXPERIMENTAL_PODMAN_NETWORK": NAME,
    }
    return Engine(folder, environment)


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    stdin: str | None = None,
    timeout: float = LONG,
    cwd: Path | None = None,
) -> str:
    """Run a command and return its standard output.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    done = subprocess.run(
        command,
        env=dict(environment),
        input=stdin or "",
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        check=False,
    )
    if done.returncode != 0:
        words = " ".join(str(word) for word in command[:6])
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise RuntimeError(f"`{words} ...` ended with {done.returncode}:\n{said}")
    return done.stdout


def say(text: str) -> None:
    """Tell whoever waits for a long step, also where pytest captures what is printed."""
    sys.__stderr__.write(f"e2e: {text}\n") if sys.__stderr__ else None
