"""kubectl, helm, kind: those of the PATH that are new enough, else built from Go modules."""

import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.support.engine import UnfitMachineError
from tests.support.binaries import BinaryMissingError, cache_folder, go_program

_VERSION = re.compile(r"\bv(\d+)\.(\d+)")
_ANSWERS_WITHIN = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, how to ask for its version, and the oldest one that knows what the tests use."""

    name: str
    asked: tuple[str, ...]
    least: tuple[int, int]

    def on_the_path(self) -> Path | None:
        """Return that of the PATH, or None when it is not there, too old, or broken."""
        found = shutil.which(self.name)
        if found is None:
            return None
        try:
            said = subprocess.run(
                [found, *self.asked],
                capture_output=True,
                text=True,
                timeout=_ANSWERS_WITHIN,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        version = _VERSION.search(said)
        if version is None or (int(version[1]), int(version[2])) < self.least:
            return None
        return Path(found)

    def found_or(self, built: Callable[[], Path]) -> Path:
        """Return that of the PATH, else the one that is built.

        Raises:
            UnfitMachineError: neither can be had.
        """
        try:
            return self.on_the_path() or built()
        except BinaryMissingError as missing:
            least = ".".join(str(part) for part in self.least)
            raise UnfitMachineError(
                f"{self.name} {least} or newer is not on the PATH, and {missing}"
            ) from missing


HELM = Tool("helm", ("version", "--short"), (3, 13))  # uninstall --ignore-not-found
KIND = Tool("kind", ("version",), (0, 27))  # containerd 2 in the nodes
KUBECTL = Tool("kubectl", ("version", "--client"), (1, 33))  # one minor version off the nodes


@functools.cache
def helm() -> Path:
    """Return Helm; a built one is Helm 4."""
    return HELM.found_or(lambda: go_program("helm4"))


@functools.cache
def kind() -> Path:
    """Return kind."""
    return KIND.found_or(lambda: go_program("kind"))


@functools.cache
def kubectl() -> Path:
    """Return kubectl; a built one is one of the names of the program that the nodes run."""
    return KUBECTL.found_or(_kubectl)


def _kubectl() -> Path:
    program = go_program("kubernetes")
    link = cache_folder() / "engine" / "kubectl"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != program:
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    return link
