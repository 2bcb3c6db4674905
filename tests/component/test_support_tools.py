"""The cluster's tools are those of the PATH, unless these would not do."""

from pathlib import Path

import pytest

from tests.e2e.support.engine import UnfitMachineError
from tests.e2e.support.tools import HELM, KIND, KUBECTL, Tool
from tests.support.binaries import BinaryMissingError


def on_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """Have a program on the PATH, and nothing else."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


def says(text: str) -> str:
    return f"echo '{text}'"


@pytest.mark.parametrize(
    ("tool", "script"),
    [
        (HELM, says("v3.21.4+g1f2e3d")),
        (HELM, says("v4.3.1+g0a1b2c")),
        (KIND, says("kind v0.33.0 go1.26.0 linux/amd64")),
        (KUBECTL, says("Client Version: v1.34.4\nKustomize Version: v5.7.1")),
        (KUBECTL, says("Client Version: v1.33.4-dispatcher")),
    ],
)
def test_a_tool_of_the_path_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool, script: str
) -> None:
    program = on_the_path(tmp_path, monkeypatch, tool.name, script)
    assert tool.found_or(lambda: Path("/built")) == program


@pytest.mark.parametrize(
    ("tool", "script"),
    [
        (HELM, says("Client: v2.17.0+ga690bad")),
        (HELM, says("v3.9.4+gdbc6d8e")),
        (KIND, says("kind v0.17.0 go1.19.2 linux/amd64")),
        (KUBECTL, says('Client Version: version.Info{Minor:"20", GitVersion:"v1.20.2"}')),
        (KUBECTL, says("Client Version: v0.0.0-master")),
        (KUBECTL, says("what?")),
        (KUBECTL, says("Client Version: v1.34.4") + "; exit 1"),
        (KUBECTL, "kill -KILL $$"),
    ],
)
def test_one_that_would_not_do_is_left_alone_and_one_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool, script: str
) -> None:
    on_the_path(tmp_path, monkeypatch, tool.name, script)
    assert tool.found_or(lambda: Path("/built")) == Path("/built")


def test_a_machine_that_can_have_neither_is_told_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    def without_go() -> Path:
        raise BinaryMissingError("Go is not installed")

    needed = "helm 3.13 or newer is not on the PATH, and Go is not installed"
    with pytest.raises(UnfitMachineError, match=needed):
        HELM.found_or(without_go)
