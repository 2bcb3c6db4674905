"""The chart's README is made from its values, and every value is described there."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.helm import CHART

ROOT = Path(__file__).resolve().parents[2]


def leaves(schema: Any, path: str = "") -> Iterator[str]:
    for name, value in schema.items():
        here = f"{path}.{name}".lstrip(".")
        yield here
        if isinstance(value, dict):
            yield from leaves(value, here)


def test_the_readme_is_fresh(tmp_path: Path) -> None:
    ask = "import chart_readme as c; print(c.page((c.CHART / 'values.yaml').read_text()), end='')"
    made = subprocess.run(
        [sys.executable, "-c", ask],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (CHART / "README.md").read_text() == made, "run python tools/chart_readme.py"


def test_every_value_has_a_comment_or_lies_in_one_that_has() -> None:
    text = (CHART / "README.md").read_text()
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in leaves(values):
        parts = path.split(".")
        above = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
        assert any(f"`{name}`" in text for name in above[-2:]) or len(parts) > 3, path
