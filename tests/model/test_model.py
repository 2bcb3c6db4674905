"""The model's quick set is as its configurations say, and TLC's words are read rightly."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from model import run

CONFIGS = run.read_configs()
QUICK = [config for config in CONFIGS.values() if config.quick]
PATIENCE = 600
LIMIT = PATIENCE - 10.0

HOLDS_OUTPUT = """\
Progress(12) at 2026-11-21 10:13:55: 900 states generated, 400 distinct states found, 7 states left
Model checking completed. No error has been found.
22084 states generated, 5095 distinct states found, 0 states left on queue.
"""
VIOLATED_OUTPUT = """\
Error: Invariant L1 is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
46 states generated, 31 distinct states found, 20 states left on queue.
"""
PROGRESS_OUTPUT = """\
Progress(9) at 2026-11-21 10:14:00: 1,234,567 states generated (1 s/min), \
268,312 distinct states found (1 ds/min), 54,321 states left on queue.
"""


@pytest.fixture(scope="module")
def tools() -> run.Tools:
    try:
        return run.find_tools(os.environ)
    except run.ToolsMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.model
@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("config", QUICK, ids=lambda config: config.name)
def test_tlc_reports_what_the_configuration_expects(config: run.Config, tools: run.Tools) -> None:
    outcome = run.run_tlc(config, tools, limit=LIMIT)

    # A machine so slow that TLC does not finish has shown nothing, right or wrong.
    if outcome.kind is run.Kind.STOPPED:
        pytest.skip(run.describe(config, outcome))
    assert not outcome.differs_from(config.expect), outcome.output


@pytest.mark.model
@pytest.mark.timeout(PATIENCE)
def test_a_switch_that_breaks_the_model_is_not_taken_for_one_that_holds(
    tools: run.Tools, tmp_path: Path
) -> None:
    source = CONFIGS["on_elect"].path
    broken = tmp_path / source.name
    broken.write_text(source.read_text().replace("TermProof = TRUE", "TermProof = FALSE"))
    (tmp_path / run.MODULE).write_bytes((run.HERE / run.MODULE).read_bytes())

    outcome = run.run_tlc(run.read_config(broken), tools, limit=LIMIT)

    assert (outcome.kind, outcome.invariant) == (run.Kind.VIOLATED, "I1")
    assert outcome.differs_from(run.HOLDS)


@pytest.mark.model
@pytest.mark.timeout(PATIENCE)
def test_a_run_leaves_no_file_behind(
    tools: run.Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(run.HERE.iterdir())

    run.run_tlc(CONFIGS["off_retry"], tools, limit=LIMIT)

    assert list(tmp_path.iterdir()) == []
    assert [path for path in sorted(run.HERE.iterdir()) if path.name != "__pycache__"] == [
        path for path in before if path.name != "__pycache__"
    ]


@pytest.mark.model
@pytest.mark.timeout(PATIENCE)
def test_a_run_past_its_limit_is_not_exhausted_and_says_so(tools: run.Tools) -> None:
    outcome = run.run_tlc(CONFIGS["on_hand_move"], tools, limit=0.05)

    assert outcome.kind is run.Kind.STOPPED
    assert "not exhausted" in run.describe(CONFIGS["on_hand_move"], outcome)


@pytest.mark.model
@pytest.mark.timeout(PATIENCE)
def test_a_run_that_is_ended_from_outside_ends_tlc_and_removes_its_files(
    tools: run.Tools, tmp_path: Path
) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, run.__file__, "on_hand_move"], env=environment, stdout=subprocess.DEVNULL
    ) as running:
        try:
            while not list(tmp_path.glob("*/states")):
                with pytest.raises(subprocess.TimeoutExpired):
                    running.wait(timeout=0.05)
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        finally:
            running.terminate()
        running.wait(timeout=LIMIT)

    assert running.returncode == 128 + signal.SIGTERM
    assert children
    assert not [child for child in children if Path("/proc", child).exists()]
    assert list(tmp_path.iterdir()) == []


def test_without_java_it_says_what_is_missing_and_exits_77(tmp_path: Path) -> None:
    answer = _command("--quick", environment={"PATH": str(tmp_path)})

    assert answer.returncode == 77
    assert "no Java 11 or newer" in answer.stderr


def test_an_old_java_is_refused(tmp_path: Path) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_402\"' >&2\n")
    java.chmod(0o755)

    with pytest.raises(run.ToolsMissing, match="no Java 11 or newer"):
        run.find_java({"JAVA_HOME": str(tmp_path), "PATH": str(tmp_path)})


def test_a_jar_that_is_named_but_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(run.ToolsMissing, match="names no file"):
        run.find_jar({"TLA2TOOLS_JAR": str(tmp_path / "none.jar")})


def test_an_unknown_configuration_exits_2_and_is_named() -> None:
    answer = _command("on_nothing")

    assert answer.returncode == 2
    assert "no configuration on_nothing" in answer.stderr


def test_a_command_line_that_asks_for_nothing_exits_2() -> None:
    assert _command().returncode == 2


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("no such thing", None),
    ],
)
def test_the_version_of_java_is_read(text: str, version: int | None) -> None:
    assert run.parse_java_version(text) == version


@pytest.mark.parametrize(
    ("output", "stopped", "kind", "invariant", "states"),
    [
        (HOLDS_OUTPUT, False, run.Kind.HOLDS, None, 5095),
        (VIOLATED_OUTPUT, False, run.Kind.VIOLATED, "L1", 31),
        (VIOLATED_OUTPUT, True, run.Kind.VIOLATED, "L1", 31),
        (PROGRESS_OUTPUT, True, run.Kind.STOPPED, None, 268_312),
        ("", True, run.Kind.STOPPED, None, None),
        (PROGRESS_OUTPUT, False, run.Kind.FAILED, None, 268_312),
        ("Error: Parsing or semantic analysis failed.", False, run.Kind.FAILED, None, None),
    ],
)
def test_what_tlc_prints_is_read(
    output: str, stopped: bool, kind: run.Kind, invariant: str | None, states: int | None
) -> None:
    outcome = run.parse_output(output, stopped=stopped, seconds=1.0)

    assert (outcome.kind, outcome.invariant, outcome.states) == (kind, invariant, states)


@pytest.mark.parametrize(
    ("output", "stopped", "expect", "differs"),
    [
        (HOLDS_OUTPUT, False, "holds", False),
        (HOLDS_OUTPUT, False, "I1", True),
        (VIOLATED_OUTPUT, False, "L1", False),
        (VIOLATED_OUTPUT, False, "I1", True),
        (VIOLATED_OUTPUT, False, "holds", True),
        (PROGRESS_OUTPUT, True, "holds", False),
        (PROGRESS_OUTPUT, True, "I1", True),
        ("", False, "holds", True),
    ],
)
def test_an_outcome_differs_unless_it_is_what_was_expected(
    output: str, stopped: bool, expect: str, differs: bool
) -> None:
    outcome = run.parse_output(output, stopped=stopped, seconds=1.0)

    assert outcome.differs_from(expect) is differs


def test_every_configuration_checks_the_invariant_that_it_expects_to_be_violated() -> None:
    for config in CONFIGS.values():
        checked = config.path.read_text().split("INVARIANTS")[1].split()
        assert config.expect in {run.HOLDS, *checked}, config.name


def test_every_rule_has_a_configuration_with_the_rule_off() -> None:
    on = _constants("on_start")
    rules = {name for name, value in on.items() if value == "TRUE"}
    off = {name: _constants(name) for name in CONFIGS if name.startswith("off_")}

    for rule in rules:
        assert any(constants[rule] == "FALSE" for constants in off.values()), rule
    for name in (name for name in CONFIGS if name.startswith("on_")):
        assert rules <= {key for key, value in _constants(name).items() if value == "TRUE"}, name


def test_the_readme_names_every_rule_every_configuration_and_only_modules_that_exist() -> None:
    readme = run.HERE.joinpath("README.md").read_text()
    table = readme.split("## From switch to rule to code")[1].split("## ")[0]
    rules = {name for name, value in _constants("on_start").items() if value == "TRUE"}

    assert not {rule for rule in rules if f"`{rule}`" not in table}
    assert not {name for name in CONFIGS if f"`{name}`" not in readme}
    for module in re.findall(r"`(\w+/\w+\.py)`", table):
        assert run.HERE.parent.joinpath("sidecar", module).is_file(), module


def test_a_configuration_that_does_not_say_what_it_expects_is_refused(tmp_path: Path) -> None:
    silent = tmp_path / "on_silent.cfg"
    silent.write_text("\\* what: nothing\nSPECIFICATION Spec\n")

    with pytest.raises(run.ConfigError, match="no comment says expect"):
        run.read_config(silent)


def _command(
    *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, run.__file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def _constants(name: str) -> dict[str, str]:
    lines = CONFIGS[name].path.read_text().splitlines()
    pairs = (line.split("=") for line in lines if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}
