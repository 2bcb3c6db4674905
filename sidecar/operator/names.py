"""The names by which Kubernetes knows what is ours."""

from __future__ import annotations

GROUP, VERSION, PLURAL, KIND = "leader-sidecar.io", "v1alpha1", "elections", "Election"
API_VERSION = f"{GROUP}/{VERSION}"

ELECTION = "leader-sidecar.io/election"
"""Annotation of a pod: the Election of its namespace that it stands in."""

INJECT = "leader-sidecar.io/inject"
"""Label of a pod or a namespace: "true" asks for a sidecar, "false" at a pod refuses one."""

LABELLED_BY = "leader-sidecar.io/labelled-by"
"""Annotation of a pod: `OPERATOR` where the sidecar may not write the pod's labels itself."""

OPERATOR = "operator"

HANDOVER_TO = "leader-sidecar.io/handover-to"
"""Annotation of an Election: the id of the candidate that is to lead next."""

TOKEN = "leader-sidecar.io/term"  # noqa: S105 - a fencing token is no secret
"""Annotation of an EndpointSlice: the term that it shows; as on pods."""

SIDECAR = "leader-sidecar"
"""The name of the injected container, and of the volume with its status."""

MANAGER = "leader-sidecar-operator"
"""Who manages an object, and who reports an Event."""
