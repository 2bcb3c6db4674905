"""At the start: which permissions the service account lacks, all told at once.

Without the question they would come out one by one, the last of them in the middle of a failover.
Every service account may ask what it may do itself (the cluster role system:basic-user); where that
was taken away, or nobody answers, the requests themselves tell.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from sidecar.errors import ApiError
from sidecar.kube.access import PodAccess

_LIMIT = 1.0  # seconds for all questions

_LABEL = (("get", "pods"), ("patch", "pods"))
_EVENTS = (("create", "events"),)


class AccessApi(Protocol):
    """What is asked of the API server; `sidecar.kube.api.ApiServer` is one."""

    async def may(self, verb: str, resource: str, name: str = "") -> bool:
        """Whether the service account may do this in its namespace."""
        ...


async def missing_permissions(api: AccessApi, access: PodAccess) -> dict[str, str]:
    """Return what the label and the Events lack, each a phrase, "" for nothing.

    Returns:
        Two entries, "label" and "events".
    """
    lacking: dict[str, list[str]] = {"label": [], "events": []}
    with contextlib.suppress(ApiError, TimeoutError):
        async with asyncio.timeout(_LIMIT):
            for output, wanted in (("label", _LABEL), ("events", _EVENTS)):
                for verb, resource in wanted:
                    name = access.name if resource == "pods" else ""
                    if not await api.may(verb, resource, name):
                        lacking[output].append(f"{verb} {resource}")
    return {output: _phrase(found, access) for output, found in lacking.items()}


def _phrase(found: list[str], access: PodAccess) -> str:
    if not found:
        return ""
    return (
        f"the service account may not {' nor '.join(found)} in namespace {access.namespace}; "
        "add it to its Role, or set --label=false"
    )
