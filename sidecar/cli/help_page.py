"""Prints docs/commands.md: `python -m sidecar.cli.help_page > docs/commands.md`."""

from __future__ import annotations

import click

from sidecar.cli.main import COMMANDS, group

_WIDTH = 100


def page() -> str:
    """Return the help of every command as one page of Markdown."""
    parts = [
        "# Commands\n",
        "What `leader-sidecar COMMAND --help` says.\n",
        _block("leader-sidecar", group, None),
    ]
    top = _context(group, "leader-sidecar", None)
    for name in COMMANDS:
        command = group.get_command(top, name)
        assert command is not None  # noqa: S101 - it is in the list
        parts.append(_block(f"leader-sidecar {name}", command, top))
    return "\n".join(parts)


def _block(title: str, command: click.Command, parent: click.Context | None) -> str:
    context = _context(command, title.rsplit(" ", 1)[-1], parent)
    return f"## {title}\n\n```text\n{command.get_help(context)}\n```\n"


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    return click.Context(
        command,
        info_name=name,
        parent=parent,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
    )


if __name__ == "__main__":
    click.echo(page(), nl=False)
