"""Print docs/settings.md: ``python -m sidecar.cli.settings_page > docs/settings.md``."""

from sidecar.flags import markdown

if __name__ == "__main__":
    print(markdown(), end="")
