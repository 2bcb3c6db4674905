"""Programs are found or built once, whoever asks, and what is missing is missing for a reason."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import binaries

pytestmark = pytest.mark.timeout(300)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("version", binaries.VERSIONS)
def test_every_program_of_a_version_says_that_version(version: str) -> None:
    found = binaries.require_etcd(version)
    for program in (found.etcd, found.etcdctl, found.etcdutl):
        ask = "--version" if program == found.etcd else "version"
        said = subprocess.run([program, ask], capture_output=True, text=True, check=True)
        assert f"version: {version}" in said.stdout.replace("Version", "version")


def test_etcd_of_the_path_is_taken_in_the_very_version_that_would_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = binaries.require_etcd()
    for program in (built.etcd, built.etcdctl, built.etcdutl):
        (tmp_path / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.etcd_binaries().etcdutl == tmp_path / "etcdutl"
    (tmp_path / "etcdutl").unlink()
    binaries._on_path.cache_clear()
    assert binaries._on_path(str(tmp_path)) is None
    (tmp_path / "etcdutl").symlink_to(binaries.require_etcd(binaries.WHEEL_VERSION).etcdutl)
    binaries._on_path.cache_clear()
    assert binaries._on_path(str(tmp_path)) is None


def test_a_program_that_needs_a_loader_is_none_for_an_empty_image() -> None:
    built = binaries.require_etcd()
    assert binaries._is_static(built.etcd)
    assert not binaries._is_static(Path("/bin/ls"))
    assert not binaries._is_static(Path(__file__))


def test_available_versions_are_those_without_a_reason_against_them() -> None:
    available = binaries.available_versions()
    for version in binaries.VERSIONS:
        assert (version in available) == (binaries.missing_reason(version) is None)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3\.6\.16"):
        binaries.etcd_binaries("2.0.0")
    with pytest.raises(ValueError, match="goelect"):
        binaries.go_program("gonothing")


def test_processes_that_build_at_the_same_time_end_up_with_one_program(tmp_path: Path) -> None:
    reason = binaries.missing_reason("golimit")
    if reason is not None:
        pytest.skip(reason)
    ask = "from tests.support.binaries import go_program; print(go_program('golimit'))"
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", ask],
            cwd=REPOSITORY,
            env={**os.environ, "LEADER_SIDECAR_CACHE": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {builder.communicate(timeout=200)[0].strip() for builder in builders}
    assert len(paths) == 1
    assert os.access(paths.pop(), os.X_OK)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".lock"]


def test_kubernetes_is_built_to_say_its_version_and_others_need_none() -> None:
    flags = binaries._flags("kubernetes")[-1]
    assert f"version.gitVersion=v{binaries.KUBERNETES_VERSION}" in flags
    assert "-X" not in " ".join(binaries._flags("etcd"))


@pytest.mark.parametrize("wanted", ["goelect", binaries.BUILT_VERSION])
def test_without_go_the_reason_says_so(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "GO_ELSEWHERE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    binaries._try_to_build.cache_clear()
    try:
        assert "Go is not installed" in (binaries.missing_reason(wanted) or "")
    finally:
        binaries._try_to_build.cache_clear()
