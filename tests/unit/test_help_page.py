from pathlib import Path

import sidecar
from sidecar.cli.help_page import page
from sidecar.cli.main import COMMANDS

DOCS = Path(sidecar.__file__).parent.parent / "docs" / "commands.md"


def test_the_page_of_commands_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run python -m sidecar.cli.help_page > docs/commands.md"


def test_every_command_has_an_example() -> None:
    sections = page().split("## leader-sidecar ")[1:]
    assert len(sections) == len(COMMANDS)
    assert [s.split("\n", 1)[0] for s in sections if "Example" not in s] == []
