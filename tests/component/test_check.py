"""`leader-sidecar check` against a status directory: right, and quick enough for a probe."""

import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar import check as check_module
from sidecar.check import quick_check
from sidecar.client import Leadership
from tests.support.status_dir import follower_document, leader_document, write_status

ROOT = Path(__file__).parents[2]
BUDGET = 0.020  # seconds above `python -c pass`, the promise of the README
# What pip writes into bin/leader-sidecar imports these, too.
AS_CONSOLE_SCRIPT = (
    "import re, sys\nfrom sidecar.check import quick_check\nsys.exit(quick_check(sys.argv[1:]))"
)


@pytest.fixture(autouse=True)
def no_directory_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LEADER_SIDECAR_STATUS_DIR", raising=False)


DOCUMENTS: list[tuple[dict[str, Any] | bytes | None, int, str]] = [
    (leader_document(), 0, ""),
    (follower_document(), 1, "does not lead"),
    (leader_document(valid_until_boottime=1.0), 1, "has ended"),
    (leader_document(boot_id="another"), 1, "before this machine was started"),
    (leader_document(time_ns=1), 1, "another time namespace"),
    (leader_document(version=2), 1, "newer version"),
    (leader_document(token=0), 1, "malformed"),
    (follower_document(candidates=['"role": "leader"', "token"]), 1, "does not lead"),
    (b'{"version": 1, "role": "leader"', 1, "malformed"),
    (b" " * (1 << 20) + b"{}", 1, "larger than"),
    (None, 1, "there is no status file"),
]


@pytest.mark.parametrize(("content", "code", "said"), DOCUMENTS)
def test_it_says_leader_for_a_live_leader_only(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    content: dict[str, Any] | bytes | None,
    code: int,
    said: str,
) -> None:
    if content is not None:
        write_status(tmp_path, content)
    assert quick_check(["--status-dir", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == code  # silence, or one line
    assert Leadership(tmp_path).is_leader() == (code == 0)


def test_a_status_file_that_cannot_be_read_is_no_leadership(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "status.json").mkdir()
    assert quick_check([f"--status-dir={tmp_path}"]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("spelling", ["--status-dir {}", "--status-dir={}"])
def test_the_directory_comes_from_the_option(tmp_path: Path, spelling: str) -> None:
    write_status(tmp_path, leader_document())
    arguments = spelling.format(tmp_path).split()
    assert quick_check(arguments) == 0


def test_the_directory_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_status(tmp_path, leader_document())
    monkeypatch.setenv("LEADER_SIDECAR_STATUS_DIR", str(tmp_path))
    assert quick_check([]) == 0
    assert quick_check(["--status-dir", str(tmp_path / "other")]) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--url", "http://x"], ["--status-dir", "x", "-v"], ["x"], ["--help"], ["--status-dirs=x"]],
)
def test_other_arguments_are_left_to_the_whole_command(
    arguments: list[str],
) -> None:
    assert quick_check(arguments) is None


@pytest.mark.parametrize("arguments", [["--status-dir"], ["--status-dir="], ["--status-dir", ""]])
def test_an_option_without_its_directory_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert quick_check(arguments) == check_module.USAGE_ERROR == 2
    assert "needs a directory" in capsys.readouterr().err


def test_it_loads_no_module_that_takes_long() -> None:
    program = (
        f"import sys; sys.path.append({str(ROOT)!r}); import sidecar.check; print(*sys.modules)"
    )
    bare = [sys.executable, "-I", "-S", "-c", program]
    loaded = set(subprocess.check_output(bare, text=True).split())
    assert "sidecar.check" in loaded
    heavy = {"asyncio", "click", "ctypes", "dataclasses", "inspect", "pathlib", "subprocess"}
    assert not loaded & heavy


def test_it_costs_at_most_its_budget_above_a_bare_python(tmp_path: Path) -> None:
    """In processor time, interleaved, by the median: a busy machine makes it no slower."""
    write_status(tmp_path, leader_document())
    ours = [sys.executable, "-c", AS_CONSOLE_SCRIPT, "--status-dir", str(tmp_path)]
    bare = [sys.executable, "-c", "pass"]
    extra = [processor_time(ours) - processor_time(bare) for _ in range(21)]
    assert statistics.median(extra) <= BUDGET


def processor_time(argv: list[str]) -> float:
    """Seconds that a process that ends well has spent."""
    process = os.posix_spawn(argv[0], argv, os.environ)
    _, status, usage = os.wait4(process, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime
