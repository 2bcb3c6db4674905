"""kubectl, helm and kind: built from Go modules at fixed versions, else those of the PATH."""

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.e2e.support.engine import UnfitMachineError
from tests.support.binaries import BinaryMissingError, cache_folder, go_program


def helm() -> Path:
    """Return Helm 4, or the Helm of the PATH."""
    return _tool("helm", lambda: go_program("helm4"))


def kind() -> Path:
    """Return kind."""
    return _tool("kind", lambda: go_program("kind"))


def kubectl() -> Path:
    """Return kubectl, which is one of the names of the program that the nodes run."""
    return _tool("kubectl", _kubectl)


def _kubectl() -> Path:
    program = go_program("kubernetes")
    link = cache_folder() / "engine" / "kubectl"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or link.readlink() != program:
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    return link


def _tool(name: str, built: Callable[[], Path]) -> Path:
    try:
        return built()
    except BinaryMissingError as missing:
        found = shutil.which(name)
        if found is None:
            raise UnfitMachineError(f"{name} is not on the PATH, and {missing}") from missing
        return Path(found)
