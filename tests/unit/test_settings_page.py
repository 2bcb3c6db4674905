"""The table of settings, the page made of it, and the options made of it."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sidecar.cli.options import given, settings_options
from sidecar.flags import BY_FIELD, FLAGS, Group, markdown
from sidecar.settings import Settings, StoreSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def run(
    *arguments: str, env: dict[str, str] | None = None, groups: Sequence[Group] = tuple(Group)
) -> dict[str, str]:
    """Return what a command with the options of these groups was given."""
    found: dict[str, str] = {}

    @click.command()
    @settings_options(groups)
    @click.argument("command", nargs=-1)
    def command(**options: Any) -> None:
        found.update(given(options))

    result = CliRunner().invoke(command, arguments, env=env)
    assert result.exit_code == 0, result.output
    return found


def test_the_page_is_up_to_date() -> None:
    made = subprocess.run(
        [sys.executable, "-m", "sidecar.cli.settings_page"],
        capture_output=True,
        check=True,
        encoding="utf-8",
    ).stdout
    assert made == markdown()
    assert PAGE.read_text(encoding="utf-8") == made, (
        "run: python -m sidecar.cli.settings_page > docs/settings.md"
    )


def test_the_table_and_the_dataclasses_have_the_same_settings() -> None:
    names = {field.name for kind in (Settings, StoreSettings) for field in fields(kind)}
    assert names - {"store", "warnings"} == set(BY_FIELD)
    assert {flag.field for flag in FLAGS if flag.group is Group.STORE} == {
        field.name for field in fields(StoreSettings)
    } - {"warnings"}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_each_setting_is_explained_once_in_each_table(flag: Any) -> None:
    row = [line for line in markdown().splitlines() if f"| `{flag.flag}" in line]
    assert len([line for line in row if f"`{flag.env}`" in line]) == 1
    assert flag.help.endswith(".")
    assert flag.trade.endswith(".")


def test_a_table_row_has_four_cells_whatever_is_in_them() -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `--")]
    assert len(rows) == len(FLAGS)
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.name)
def test_every_setting_comes_from_its_flag_and_from_its_variable(flag: Any) -> None:
    assert run(flag.flag, "7") == {flag.field: "7"}
    assert run(env={flag.env: "8"}) == {flag.field: "8"}
    assert run(flag.flag, "7", env={flag.env: "8"}) == {flag.field: "7"}
    assert run(env={flag.env: ""}) == {}


def test_what_is_not_given_is_absent() -> None:
    assert run() == {}


def test_a_switch_needs_no_value() -> None:
    assert run("--accept-token-reset") == {"accept_token_reset": "true"}
    assert run("--accept-token-reset", "--ttl", "5", "--", "sleep", "1") == {
        "accept_token_reset": "true",
        "ttl": "5",
    }


def test_a_command_may_take_some_groups_only() -> None:
    assert run("--user", "a", env={"LEADER_SIDECAR_TTL": "5"}, groups=[Group.STORE]) == {
        "user": "a"
    }


def test_the_help_names_variables_and_defaults() -> None:
    @click.command()
    @settings_options()
    def command(**options: Any) -> None:
        """Do nothing."""

    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    for flag in FLAGS:
        assert flag.flag in text
        assert f"[env var: {flag.env}]" in text
    assert "[default: none, must be given]" in text
    assert text.isascii()
