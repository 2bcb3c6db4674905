"""Makes the README of the chart with the kind Election: `python tools/kind_readme.py`.

A field's description is the one in the definition, which `kubectl explain` shows, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "leader-sidecar-crds"
DEFINITION = CHART / "templates" / "elections.yaml"

_HEAD = """\
# leader-sidecar-crds

The kind `Election` (`elections.leader-sidecar.io`, short name `elect`). Install it once per cluster, before
`charts/leader-sidecar` with `operator.enabled`:

    helm install leader-sidecar-crds charts/leader-sidecar-crds

`helm upgrade` changes it in place, with objects in it. `helm uninstall` leaves it (`helm.sh/resource-policy: keep`),
since every Election would go with it; a later `helm install` of the same release name and namespace takes it up again.

It is a chart of its own because a definition belongs to the cluster: inside the chart of the program a second
release would collide with the first one, and a reinstallation with what was kept.

# Fields

What the operator makes of them: [docs/operator.md](../../docs/operator.md). `kubectl explain elect.spec` shows the
same, and every rule's message names its field. This page is made by `python tools/kind_readme.py`.
"""


def schema(text: str) -> dict[str, Any]:
    """Return the schema of the only version, for the text of the template."""
    # Templates stand in the metadata alone.
    spec = yaml.safe_load("spec:" + text.split("\nspec:", 1)[1])["spec"]
    (version,) = spec["versions"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


def fields(found: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield the path and the schema of every field below, and whether it must be given."""
    for name, below in found.get("properties", {}).items():
        here = f"{path}.{name}".lstrip(".")
        yield here, below, name in found.get("required", ())
        if below["type"] == "array":
            yield from fields(below["items"], f"{here}[]")
        else:
            yield from fields(below, here)


def kind_of(found: dict[str, Any]) -> str:
    """Return the type in a few words."""
    if "enum" in found:
        return ", ".join(f"`{each}`" for each in found["enum"])
    if found["type"] == "array":
        return f"list of {found['items']['type']}s"
    if "minimum" in found:
        return f"{found['minimum']} to {found['maximum']}"
    return str(found["type"])


def page(text: str) -> str:
    """Return the README for the text of the template."""
    parts = [_HEAD]
    for path, found, is_required in fields(schema(text)):
        if "." not in path:
            parts.append(f"\n## `{path}`\n\n{found['description']}\n")
            parts.append("\n| field | type | what it is |\n|---|---|---|\n")
            continue
        told = " ".join(str(found["description"]).split())
        told += f" Default: `{found['default']}`." if "default" in found else ""
        said = kind_of(found) + (", required" if is_required and path.startswith("spec") else "")
        parts.append(f"| `{path}` | {said} | {told} |\n")
    return "".join(parts)


if __name__ == "__main__":
    (CHART / "README.md").write_text(page(DEFINITION.read_text()))
    sys.stdout.write("charts/leader-sidecar-crds/README.md\n")
