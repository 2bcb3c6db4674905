from pathlib import Path

import pytest
from click.testing import CliRunner

import sidecar
from sidecar.cli.help_page import page
from sidecar.cli.main import COMMANDS, group

DOCS = Path(sidecar.__file__).parent.parent / "docs" / "commands.md"


def test_the_page_of_commands_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run python -m sidecar.cli.help_page > docs/commands.md"


def test_every_command_has_an_example() -> None:
    sections = page().split("## leader-sidecar ")[1:]
    assert len(sections) == len(COMMANDS)
    assert [s.split("\n", 1)[0] for s in sections if "Example" not in s] == []


def test_no_line_of_the_list_of_commands_is_cut_at_80_columns() -> None:
    shown = CliRunner().invoke(group, ["--help"], terminal_width=80).output
    assert all(f"\n  {name} " in shown for name in COMMANDS)
    assert "...\n" not in shown.partition("Commands:")[2]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("run", "exec")])
def test_only_run_and_exec_speak_of_standing_in_the_election(name: str) -> None:
    (section,) = [s for s in page().split("## leader-sidecar ")[1:] if s.startswith(f"{name}\n")]
    assert "election to stand in" not in section
    assert ("--election NAME" in section) is (name not in ("retire", "demo", "etcd"))
