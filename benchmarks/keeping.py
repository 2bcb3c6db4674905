"""Where results are kept: JSON, and the table as Markdown beside it, named by day and commit."""

from __future__ import annotations

import datetime as dt
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.table import Row, as_markdown

RESULTS = Path(__file__).resolve().parent / "results"


def place(facts: Mapping[str, str], of: str = "") -> Path:
    """Return the file for what was measured today on a commit, `of` a part of the project."""
    parts = (_today(), facts["commit"].rstrip("+"), of)
    return RESULTS / f"{'-'.join(part for part in parts if part)}.json"


def keep(
    path: Path,
    rows: Sequence[Row],
    facts: Mapping[str, str],
    *,
    command: str = "make bench",
    **more: object,
) -> None:
    """Write down what `command` found; `more` stands in the JSON only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "date": _today(),
        "command": command,
        "machine": {**facts, "architecture": platform.machine()},
        "table": [asdict(row) for row in rows],
        **more,
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
    dated = {"date": _today(), **facts}
    path.with_suffix(".md").write_text(as_markdown(rows, dated, command))
    print(f"written: {path} and {path.with_suffix('.md').name}", file=sys.stderr)


def _today() -> str:
    return dt.datetime.now(dt.UTC).date().isoformat()
