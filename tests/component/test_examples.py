"""The same question in Python, Go and shell: am I the leader, with which token?"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar import boottime
from tests.support.status_dir import KEY, TOKEN, follower_document, leader_document, write_status

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "leadership"


@pytest.fixture(scope="session")
def go_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        if os.environ.get("LEADER_SIDECAR_NO_SKIP"):
            pytest.fail("the Go example needs the Go toolchain, and there is no `go` on the PATH")
        pytest.skip("the Go example needs the Go toolchain, and there is no `go` on the PATH")
    program = tmp_path_factory.mktemp("go") / "leadership"
    offline = {"GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": "", "CGO_ENABLED": "0"}
    for command in (["vet", "."], ["build", "-o", str(program), "."]):
        subprocess.run(["go", *command], cwd=EXAMPLES, env=dict(os.environ) | offline, check=True)
    return program


SHELLS = [shell for shell in ("dash", "bash", "busybox") if shutil.which(shell)]


@pytest.fixture(params=["python", "go", *SHELLS])
def example(request: pytest.FixtureRequest) -> list[str]:
    match request.param:
        case "python":
            return [sys.executable, str(EXAMPLES / "leadership.py")]
        case "go":
            return [str(request.getfixturevalue("go_example"))]
        case shell:
            run = ["busybox", "sh"] if shell == "busybox" else [shell]
            return [*run, str(EXAMPLES / "leadership.sh")]


def answer(example: list[str], directory: Path) -> tuple[int, str, str]:
    env = dict(os.environ) | {"PYTHONPATH": str(ROOT)}
    argv = [*example, str(directory)]
    said = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    return said.returncode, said.stdout.strip(), said.stderr


def test_a_leader_is_told_its_token_and_its_key(example: list[str], tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    assert answer(example, tmp_path) == (0, f"leader {TOKEN} {KEY}", "")


def test_spaces_between_the_parts_make_no_difference(example: list[str], tmp_path: Path) -> None:
    write_status(tmp_path, json.dumps(leader_document(), separators=(",", ":")).encode())
    assert answer(example, tmp_path) == (0, f"leader {TOKEN} {KEY}", "")


def test_a_follower_is_told_so(example: list[str], tmp_path: Path) -> None:
    write_status(tmp_path, follower_document())
    assert answer(example, tmp_path) == (1, "follower", "")


QUOTED = '{"role": "leader", "valid_until_boottime": 99999999999, "version": 1}'
NOT_NOW = {
    "expired": {"valid_until_boottime": 1.0},
    "of another boot": {"boot_id": "00000000-0000-0000-0000-000000000000"},
    "without a boot id": {"boot_id": None},
    "without a deadline": {"valid_until_boottime": None},
    "of a later version": {"version": 2},
    "of a follower with a leader's name": {"role": "follower", "id": QUOTED},
    "expired, in a quotation good": {"valid_until_boottime": 1.0, "candidates": [QUOTED]},
}


@pytest.mark.parametrize("changes", NOT_NOW.values(), ids=NOT_NOW)
def test_a_claim_that_does_not_hold_here_and_now_makes_a_follower(
    example: list[str], tmp_path: Path, changes: dict[str, Any]
) -> None:
    write_status(tmp_path, leader_document(**changes))
    assert answer(example, tmp_path) == (1, "follower", "")


def test_a_missing_or_broken_file_makes_a_follower(example: list[str], tmp_path: Path) -> None:
    assert answer(example, tmp_path) == (1, "follower", "")
    write_status(tmp_path, b'{"version": 1, "role": "leader"')
    assert answer(example, tmp_path) == (1, "follower", "")


def test_a_leadership_ends_for_every_example_once_its_deadline_has_come(
    example: list[str], tmp_path: Path
) -> None:
    write_status(tmp_path, leader_document(valid_until_boottime=boottime.now()))
    assert answer(example, tmp_path) == (1, "follower", "")
