"""The wheel that users install: built offline, then looked into."""

import configparser
import email.parser
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = target.glob("*.whl")
    return path


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def dist_info(wheel: Path, name: str) -> str:
    (path,) = (n for n in names(wheel) if n.endswith(f".dist-info/{name}"))
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path).decode()


def metadata(wheel: Path) -> Message:
    return email.parser.Parser().parsestr(dist_info(wheel, "METADATA"))


def test_the_wheel_is_for_any_platform(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    top = {name.split("/")[0] for name in names(wheel)}
    assert {part for part in top if not part.endswith(".dist-info")} == {"sidecar"}


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    package = ROOT / "sidecar"
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= set(names(wheel))


def test_the_wheel_tells_type_checkers_that_it_is_typed(wheel: Path) -> None:
    assert "sidecar/py.typed" in names(wheel)


def test_the_wheel_carries_its_licence(wheel: Path) -> None:
    assert "Apache License" in dist_info(wheel, "licenses/LICENSE")
    assert metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_the_wheel_has_the_name_and_version_of_the_project(
    wheel: Path, project: dict[str, Any]
) -> None:
    found = metadata(wheel)
    assert (found["Name"], found["Version"]) == (project["name"], project["version"])
    # What runs here is what the wheel is built from, not an install that was left behind.
    assert importlib.metadata.version(project["name"]) == project["version"]
    assert found["Requires-Python"] == project["requires-python"]


def test_the_command_starts_main(wheel: Path) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read_string(dist_info(wheel, "entry_points.txt"))
    assert dict(entry_points["console_scripts"]) == {"leader-sidecar": "sidecar.__main__:main"}


def test_the_changelog_has_a_place_for_the_next_version(project: dict[str, Any]) -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in text or f"## [{project['version']}]" in text


@pytest.mark.parametrize("lock", ["build", "crawler", "dev", "operator", "runtime"])
def test_lock_files_pin_by_hash_and_name_no_host(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    assert "://" not in text
    lines = [line for line in text.splitlines() if line and line.lstrip()[0] != "#"]
    pins = [i for i, line in enumerate(lines) if not line.startswith(" ")]
    assert pins
    for i in pins:
        assert "==" in lines[i]
        assert lines[i + 1].lstrip().startswith("--hash=sha256:")


def pins(lock: str) -> dict[str, str]:
    """What a lock file installs: name and version."""
    text = (ROOT / "requirements" / f"{lock}.lock").read_text()
    lines = (
        line.split("==", 1) for line in text.splitlines() if re.match(r"[a-zA-Z0-9].*==", line)
    )
    return {name: rest.split()[0] for name, rest in lines}


def test_everything_that_is_released_has_one_version(project: dict[str, Any]) -> None:
    version = project["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    for chart in ("leader-sidecar", "leader-sidecar-crds"):
        told = yaml.safe_load((ROOT / "charts" / chart / "Chart.yaml").read_text())
        assert (told["version"], told["appVersion"]) == (version, version), chart
    for path in (ROOT / "manifests").rglob("kustomization.yaml"):
        for image in yaml.safe_load(path.read_text()).get("images", []):
            assert image["newTag"] == version, path


def test_the_sidecar_adds_at_most_60_mb_to_its_base_image() -> None:
    installed = {d.name.lower().replace("_", "-"): d for d in importlib.metadata.distributions()}
    size = sum(path.stat().st_size for path in (ROOT / "sidecar").rglob("*") if path.is_file())
    for name in pins("runtime"):
        if name not in installed:
            continue  # for another platform
        files = [Path(str(file.locate())) for file in installed[name].files or ()]
        size += sum(path.stat().st_size for path in files if path.is_file())
    assert 10e6 < size < 60e6


def test_lock_files_agree_with_each_other() -> None:
    dev = pins("dev")
    for lock in ("build", "operator", "runtime"):
        found = pins(lock)
        assert found
        assert {name: dev.get(name) for name in found} == found
