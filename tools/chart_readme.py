"""Makes the README of the chart from its values.yaml: `python tools/chart_readme.py`.

A value's description is the comment right above it. A section whose members have comments is a
heading of its own; everything else is one line of a table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "leader-sidecar"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][\w-]*):(?P<rest>.*)$")

_HEAD = """\
# leader-sidecar: the Helm chart

Replicas of a program of which one leads, elected in etcd by a sidecar beside each; and that etcd.

    helm install demo charts/leader-sidecar

Helm 3 or 4, Kubernetes 1.29 or newer. `helm test demo` looks whether exactly one leads.

- **The Service `<release>`** has all pods; through the sidecars' forwarders each reaches the leader.
- **The Service `<release>-leader`** follows the pods' labels. After the death of a node it holds the
  dead pod until Kubernetes marks the node NotReady, since nobody but an operator may touch that pod:
  the forwarder is the fast way.
- **A rollout of the Deployment changes the leader once**: the sidecar gives the leader's pod a
  deletion cost, so that it goes last. A StatefulSet is rolled out by a Job with the same promise
  (`master.rollout.strategy: OnDelete`); with `RollingUpdate` Kubernetes replaces the highest ordinal
  first, which is one to three changes.
- **etcd is scaled by `etcd.replicas`**, never by `kubectl scale`. Down: a hook takes members out of the
  cluster, one at a time, each with its pod, and the upgrade is not begun when that fails; what was
  taken out stays so. Up: a new member joins as a learner, and votes once it has caught up.
- **A member of etcd whose volume was lost** does not start by itself: an Event says what to do. With
  `etcd.autoReplaceMember` it is replaced while a quorum answers.
- **An upgrade may change every value** but what is decided by the install: `nameOverride`,
  `fullnameOverride`, `tls.mode`, another authority of the certificates, `users.mode`,
  `master.volumeClaimTemplates` and, of `etcd.persistence`, `enabled`, `size` and `storageClassName`.
  Another `sidecar.election` or another etcd is a new election; another `master.kind` replaces all pods
  at once.
- **`helm upgrade --timeout`** (five minutes by default) must leave the hooks their time:
  `etcd.scaleDownTimeoutSeconds`, and `master.rollout.timeoutSeconds` for a StatefulSet.
- **Without `rbac.create`** nothing is allowed to anybody: the values of `rbac` say what your own service
  accounts must be allowed, and the notes of the release say it for your choices.
- **etcd's storage must heed `fsGroup`**, or be writable for the group 65532: else its pods stop with an
  Event that says so.
- **`helm uninstall`** leaves etcd's volumes (`etcd.persistence.whenDeleted`) and, with `tls.keep`, the
  Secrets.

This page is made from `values.yaml` by `python tools/chart_readme.py`.

# Values
"""


@dataclass(frozen=True, slots=True)
class Value:
    """One value: its path, its description, its default."""

    path: str
    told: str
    default: Any


def entries(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the comment of every key that has a comment right above it."""
    parents: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        found = _KEY.match(line)
        if found is not None:
            indent = len(found["indent"])
            parents = [pair for pair in parents if pair[0] < indent]
            parents.append((indent, found["key"]))
            if comment:
                yield ".".join(name for _, name in parents), " ".join(comment)
        comment = []


def at(values: Any, path: str) -> Any:
    """Return the default of a value by its path."""
    for name in path.split("."):
        values = values[name]
    return values


def page(text: str) -> str:
    """Return the README for the text of a values.yaml."""
    values = yaml.safe_load(text)
    told = dict(entries(text))
    parts = [_HEAD]
    heading = None
    for path, comment in told.items():
        is_section = any(other.startswith(f"{path}.") for other in told)
        top = path.split(".", 1)[0]
        if "." not in path and not is_section:
            top = "General"
        if top != heading and not (top == "General" and heading is not None):
            heading = top
            title = "## General\n" if top == "General" else f"## `{top}`\n\n{told[top]}\n"
            parts += [f"\n{title}\n| value | default | what it is |\n|---|---|---|\n"]
        if not is_section:
            default = json.dumps(at(values, path), ensure_ascii=False)
            cells = (f"`{path}`", f"`{default}`", comment)
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
        elif "." in path:
            parts.append(f"| `{path}` | | {comment} |\n")
    return "".join(parts)


if __name__ == "__main__":
    (CHART / "README.md").write_text(page((CHART / "values.yaml").read_text()))
    sys.stdout.write("charts/leader-sidecar/README.md\n")
