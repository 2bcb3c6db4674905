"""An Election that cannot be read: it is looked after only so far that its status says why.

The definition of the kind refuses most of what is wrong; the rest is found out when it is read.
Nothing of such an Election is acted upon, also nothing of its last version: what people wrote and
what is done would differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import SidecarError
from sidecar.operator.spec import Election, Store, read_election


@dataclass(frozen=True, slots=True)
class Unreadable(Election):
    """Selects no pods and follows no election; `problem` names the field that is wrong."""

    problem: str = ""


def read(document: Mapping[str, Any]) -> Election:
    """Return an Election of the API, or an `Unreadable` in its place."""
    try:
        return read_election(document)
    except (ValueError, SidecarError) as exc:
        problem = str(exc)
    metadata = document["metadata"]
    return Unreadable(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        version=str(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
        election="",
        store=Store(()),
        status=document.get("status") or {},
        problem=problem,
    )
