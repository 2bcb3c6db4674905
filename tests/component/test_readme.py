"""What the README shows is what is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sidecar
from tests.support.status_dir import leader_document, write_status

ROOT = Path(sidecar.__file__).parent.parent
COLUMNS = 100
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_the_python_example_says_leader_with_token_and_key(tmp_path: Path) -> None:
    write_status(tmp_path, leader_document())
    (example,) = [block for block in blocks("python") if "Leadership" in block]
    program = example.replace("/run/leader-sidecar", str(tmp_path))
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"leader \d+ /\S+\n", run.stdout), run.stderr


@pytest.mark.parametrize(("language", "path"), [("go", "leadership.go"), ("sh", "leadership.sh")])
def test_the_other_examples_are_parts_of_the_tested_programs(language: str, path: str) -> None:
    (example,) = blocks(language)
    assert example in (ROOT / "examples/leadership" / path).read_text()


def test_no_line_of_code_is_wrapped_at_100_columns() -> None:
    is_code = False
    too_long = []
    for line in README.expandtabs(8).splitlines():
        if line.startswith("```"):
            is_code = not is_code
        elif (is_code or line.startswith("    ")) and len(line) > COLUMNS:
            too_long.append(line)
    assert too_long == []


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
