"""`inject -f`: the sidecar in manifests, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from sidecar.errors import ConfigError
from sidecar.operator import injection
from sidecar.operator.injection import Defaults
from sidecar.operator.names import API_VERSION, KIND
from sidecar.operator.spec import Election, read_election

__all__ = ["Defaults", "inject"]

_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}

Document = dict[str, Any]


def inject(
    texts: Sequence[str], *, election: str, defaults: Defaults, as_patch: bool = False
) -> str:
    """Return manifests with the sidecar in every pod that asks for it, Elections left out of none.

    Args:
        texts: YAML, each of any number of documents.
        election: the Election of pods whose annotation names none, or "".
        defaults: where the Election says nothing.
        as_patch: return the JSON patch of each object instead, one a line, after its name.

    Raises:
        ConfigError: with all problems: no YAML, an Election that is not there.
    """
    documents = [found for text in texts for found in _documents(text)]
    elections = _elections(documents)
    problems: list[str] = []
    shown: list[str] = []
    for document in documents:
        pod = _pod(document)
        if pod is None or not injection.wants_sidecar(pod.get("metadata") or {}, {}):
            if not as_patch:
                shown.append(_yaml(document))
            continue
        name = injection.election_of(pod.get("metadata") or {}) or election
        where = f"{document['kind']} {(document.get('metadata') or {}).get('name', '')}"
        found = elections.get(name)
        if found is None:
            problems.append(_missing(where, name))
            continue
        try:
            after = injection.injected(pod, found, defaults)
        except ValueError as exc:
            problems.append(f"{where}: Election {name}: {exc}")
            continue
        if as_patch:
            path = "".join(f"/{part}" for part in _TEMPLATES[document["kind"]])
            operations = [
                {**each, "path": path + each["path"]} for each in injection.patch(pod, after)
            ]
            shown.append(f"# {where}\n{json.dumps(operations)}\n")
        else:
            pod.update(after)
            shown.append(_yaml(document))
    if problems:
        raise ConfigError(problems)
    return "".join(shown) if as_patch else "---\n".join(shown)


def _documents(text: str) -> Iterable[Document]:
    try:
        for found in yaml.safe_load_all(text):
            if isinstance(found, dict) and found.get("kind") == "List":
                yield from found.get("items") or ()
            elif isinstance(found, dict):
                yield found
    except yaml.YAMLError as exc:
        raise ConfigError([f"-f: no YAML: {exc}"]) from exc


def _elections(documents: Iterable[Document]) -> Mapping[str, Election]:
    found: dict[str, Election] = {}
    for document in documents:
        if document.get("kind") == KIND and document.get("apiVersion") == API_VERSION:
            try:
                each = read_election(document)
            except ValueError as exc:
                raise ConfigError([f"Election: {exc}"]) from exc
            found[each.name] = each
    return found


def _pod(document: Document) -> Document | None:
    path = _TEMPLATES.get(str(document.get("kind")))
    if path is None:
        return None
    found: Any = document
    for part in path:
        found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, dict) and "spec" in found else None


def _yaml(document: Document) -> str:
    return yaml.safe_dump(document, sort_keys=False, width=120)


def _missing(where: str, name: str) -> str:
    if not name:
        return (
            f"{where}: the annotation leader-sidecar.io/election names no Election; add --election"
        )
    return f"{where}: Election {name} is not among the manifests; give its file with -f, too"
