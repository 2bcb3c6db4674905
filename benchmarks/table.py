"""The one table: what, ours, peer, ratio, at least, reached. Pure; as text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = ("what", "ours", "peer", "ratio", "at least", "reached")


@dataclass(frozen=True, slots=True)
class Row:
    """One line; "" where there is nothing to say, `reached` None where nothing was asked."""

    what: str
    ours: str = ""
    peer: str = ""
    ratio: str = ""
    at_least: str = ""
    reached: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the line as it is printed."""
        reached = {True: "yes", False: "NO", None: ""}[self.reached]
        return (self.what, self.ours, self.peer, self.ratio, self.at_least, reached)


def as_text(rows: Sequence[Row]) -> str:
    """Return the table for a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    padded = [
        " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    rule = "-+-".join("-" * width for width in widths)
    return "\n".join([padded[0], rule, *padded[1:]])


def as_markdown(rows: Sequence[Row], facts: Mapping[str, str], command: str) -> str:
    """Return the table for the README, and below it where and by which command it was measured."""
    lines = [HEAD, ("---",) * len(HEAD), *(row.cells() for row in rows)]
    table = [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    ]
    where = "; ".join(f"{name}: {value}" for name, value in facts.items() if value)
    return "\n".join([*table, "", f"Measured by `{command}`. {where}.", ""])
