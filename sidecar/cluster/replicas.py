"""How many pods the members' StatefulSet shall have, lowered along with the members.

A pod whose member was removed fails for ever: its etcd ends, whenever it is started. So it goes
with its member, before anybody who waits for the StatefulSet takes that for a failed upgrade.
"""

from __future__ import annotations

from typing import Any

from sidecar.cluster.api import Api
from sidecar.cluster.plan import Plan

OWNER = "leader-sidecar-scale-down"
"""Under this name the number is changed; afterwards nobody owns it."""


class Replicas:
    """The number of one StatefulSet; every call blocks."""

    def __init__(self, api: Api, plan: Plan) -> None:
        self._api = api
        self._path = f"/apis/apps/v1/namespaces/{plan.namespace}/statefulsets/{plan.stateful_set}"

    def now(self) -> int | None:
        """Return how many there shall be; None: the StatefulSet is not there.

        Raises:
            ApiError: it cannot be read.
        """
        found = self._api.find(self._path)
        return None if found is None else int(found["spec"]["replicas"])

    def may_lower(self) -> None:
        """Ask for leave, and change nothing: a member that is out does not come back by itself.

        Raises:
            ApiError: the number must not be changed, or nobody answered.
        """
        found = self._api.get(self._path)
        same = {"spec": {"replicas": found["spec"]["replicas"]}}
        self._api.merge(f"{self._path}?dryRun=All&fieldManager={OWNER}", same)

    def lower(self, to: int) -> bool:
        """Have no more than so many; return whether those beyond are on their way out.

        Raises:
            ApiError: it was not changed, or not for certain; may be repeated.
        """
        found = self._api.get(self._path)
        if found["spec"]["replicas"] > to:
            self._api.merge(f"{self._path}?fieldManager={OWNER}", {"spec": {"replicas": to}})
            found = self._api.get(self._path)
        self._disown(found["metadata"])
        seen = found.get("status", {}).get("observedGeneration", 0)
        # The controller deletes pods before it writes down what it has seen.
        return bool(seen >= found["metadata"]["generation"])

    def _disown(self, metadata: dict[str, Any]) -> None:
        """Leave the number to whoever sets it next: server-side apply refuses what others own."""
        owners = metadata.get("managedFields", [])
        others = [each for each in owners if each["manager"] != OWNER]
        if others != owners:
            changed = {"resourceVersion": metadata["resourceVersion"], "managedFields": others}
            self._api.merge(self._path, {"metadata": changed})
