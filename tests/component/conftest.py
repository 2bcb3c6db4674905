"""A disk that is small enough to fill, also for root, and an API server."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.kube_api import KubeApi


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return where a file system of 64 KiB is mounted; needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[KubeApi]:
    """Return a server that behaves like the API server, with one pod."""
    with KubeApi(tmp_path) as made:
        yield made
