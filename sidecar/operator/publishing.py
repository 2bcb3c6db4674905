"""The Service of an Election and its EndpointSlices, by as few writes as there can be."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.operator import slices
from sidecar.operator.api import Api, core_path, group_path
from sidecar.operator.facts import Pod
from sidecar.operator.spec import Election, Service
from sidecar.operator.view import View

log = logging.getLogger(__name__)

_SLICES = "discovery.k8s.io/v1"


class NotOursError(Exception):
    """A Service or a slice of that name is there and was made by somebody else."""


class NewerTermError(Exception):
    """A slice shows a term that etcd does not know: it is left as it is."""


class Publisher:
    """Remembers what is there, so that a change of the leader costs one write."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._service: Mapping[str, Any] | None = None
        self._wanted: Service | None = None
        self._slices: dict[int, Mapping[str, Any]] = {}

    def forget(self) -> None:
        """Look at what is there before the next write."""
        self._service = None
        self._slices.clear()

    async def publish(
        self, election: Election, service: Service, view: View, pods: Sequence[Pod]
    ) -> None:
        """Have the Service lead to whom etcd says leads.

        Raises:
            NotOursError: somebody else's Service, or slice, has the name.
            NewerTermError: a slice shows a term beyond all that is known here.
            ApiError: a request failed; what is there is looked at anew next time.
        """
        try:
            if self._service is None or self._wanted != service:
                self._service = await self._ensure(election, service)
                self._wanted = service
            for family in slices.families_of(self._service):
                uid = str(self._service["metadata"]["uid"])
                wanted = slices.slice_of(election, service, view, pods, uid=uid, family=family)
                await self._show(election, wanted, family, view)
        except BaseException:
            self.forget()
            raise

    async def withdraw(self, election: Election, name: str) -> None:
        """Have a Service that was made for this Election lead to nobody.

        Raises:
            ApiError: a request failed.
        """
        for family in slices.FAMILIES:
            path = group_path(
                _SLICES, election.namespace, "endpointslices", slices.name_of(name, family)
            )
            found = await self._api.find(path)
            if found is None or not slices.is_shown_by(found, election):
                continue
            if found.get("endpoints"):
                version = found["metadata"]["resourceVersion"]
                patch = {"metadata": {"resourceVersion": version}, "endpoints": []}
                await self._api.patch(path, patch)
        self.forget()

    async def _ensure(self, election: Election, service: Service) -> Mapping[str, Any]:
        path = core_path(election.namespace, "services", service.name)
        found = await self._api.find(path)
        if found is None:
            made = slices.service_of(election, service)
            return await self._api.create(core_path(election.namespace, "services"), made)
        if not slices.is_ours(found, election):
            raise NotOursError(
                f"Service {service.name} is there and was not made for this Election; "
                "give spec.service.name another name"
            )
        if found["spec"].get("ports") != slices.wanted_ports(service):
            version = found["metadata"]["resourceVersion"]
            patch = {
                "metadata": {"resourceVersion": version},
                "spec": {"ports": slices.wanted_ports(service)},
            }
            return await self._api.patch(path, patch)
        return found

    async def _show(
        self, election: Election, wanted: dict[str, Any], family: int, view: View
    ) -> None:
        metadata = wanted["metadata"]
        path = group_path(_SLICES, metadata["namespace"], "endpointslices", metadata["name"])
        found = self._slices.get(family) or await self._api.find(path)
        if found is None:
            collection = group_path(_SLICES, metadata["namespace"], "endpointslices")
            self._slices[family] = await self._api.create(collection, wanted)
            return
        if not slices.may_show(found, election, metadata["ownerReferences"][0]["uid"]):
            raise NotOursError(
                f"EndpointSlice {metadata['name']} is there and was not made for this Election; "
                "give spec.service.name another name, or delete the slice"
            )
        self._slices[family] = found
        if view.is_older_than(slices.shown_term(found)):
            raise NewerTermError(
                f"EndpointSlice {metadata['name']} shows term {slices.shown_term(found)}, which "
                "etcd does not know: was it restored? Delete the slice, and it is made anew"
            )
        wanted["endpoints"] = wanted["endpoints"] or slices.not_ready(found)
        if slices.agrees(found, wanted):
            return
        # The version guards what was decided upon: never against a newer term.
        patch = {
            "metadata": {
                "resourceVersion": found["metadata"]["resourceVersion"],
                "labels": metadata["labels"],
                "annotations": metadata["annotations"],
                "ownerReferences": metadata["ownerReferences"],
            },
            "endpoints": wanted["endpoints"],
            "ports": wanted["ports"],
        }
        self._slices[family] = await self._api.patch(path, patch)
        log.debug("slice switched slice=%s term=%d", metadata["name"], view.token)
