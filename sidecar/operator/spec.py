"""An Election as somebody wrote it, read once and checked. Pure.

The definition of the kind refuses what is wrong at `kubectl apply`; what comes here may have been
written under an older definition, so every field is looked at again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sidecar.core.keys import name_problem
from sidecar.kube.marks import ROLE
from sidecar.operator.names import HANDOVER_TO

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_SHORTEST_TERM = 60.0
_SHORTEST_WINDOW = 60.0

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One expression of a label selector."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet it, as Kubernetes understands it."""
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class Selector:
    """A label selector; an empty one selects nothing here, unlike in Kubernetes."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it selects what has these labels."""
        return bool(self.requirements) and all(r.holds(labels) for r in self.requirements)


@dataclass(frozen=True, slots=True)
class Store:
    """The etcd of an election, and the Secrets to reach it with; "" for none."""

    endpoints: tuple[str, ...]
    tls_secret: str = ""
    client_certificate: bool = False
    user: str = ""
    password_secret: str = ""


@dataclass(frozen=True, slots=True)
class Preferred:
    """Who leads if it can; at most one of them is set."""

    candidate: str = ""
    pods: Selector = Selector()
    nodes: Selector = Selector()


@dataclass(frozen=True, slots=True)
class Window:
    """A time of the week.

    Attributes:
        days: 0 is Monday.
        start: seconds since midnight, UTC.
        seconds: how long it lasts.
    """

    days: frozenset[int]
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a Service and the leader's port behind it."""

    name: str
    port: int
    target: int
    protocol: str = "TCP"
    app_protocol: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """The Service whose endpoint follows the leader."""

    name: str
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Election:
    """One Election.

    Attributes:
        sidecar: how sidecars are injected, as it was written; see `sidecar.operator.injection`.
        paused: None where nothing is said.
        longest_term: seconds, or None.
        handover_to: the candidate that the annotation names, or "".
    """

    namespace: str
    name: str
    uid: str
    version: str
    generation: int
    election: str
    store: Store
    selector: Selector = Selector()
    sidecar: Document = field(default_factory=dict)
    paused: bool | None = None
    preferred: Preferred = Preferred()
    longest_term: float | None = None
    windows: tuple[Window, ...] = ()
    service: Service | None = None
    handover_to: str = ""
    status: Document = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.namespace, self.name


def read_election(document: Document) -> Election:
    """Read an object of the API.

    Raises:
        ValueError: a sentence that names the field that is wrong.
    """
    try:
        return _read(document)
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"spec: {exc!r}") from exc


def _read(document: Document) -> Election:
    metadata, spec = _object(document, "metadata"), _object(document, "spec")
    election = _text(spec, "election", "spec.election")
    if problem := name_problem(election):
        raise ValueError(f"spec.election: {problem}")
    name = str(metadata.get("name", ""))
    paused = spec.get("paused")
    return Election(
        namespace=str(metadata.get("namespace", "")),
        name=name,
        uid=str(metadata.get("uid", "")),
        version=str(metadata.get("resourceVersion", "")),
        generation=int(metadata.get("generation") or 0),
        election=election,
        store=_store(_object(spec, "etcd", "spec.etcd")),
        selector=_pods(spec.get("selector"), "spec.selector"),
        sidecar=_object(spec, "sidecar", "spec.sidecar") if spec.get("sidecar") else {},
        paused=paused if isinstance(paused, bool) else None,
        preferred=_preferred(spec.get("preferred") or {}),
        longest_term=_longest_term(spec.get("maxTermDuration")),
        windows=tuple(_window(each) for each in spec.get("maintenanceWindows") or ()),
        service=_service(name, spec.get("service")),
        handover_to=str((metadata.get("annotations") or {}).get(HANDOVER_TO, "")),
        status=document.get("status") or {},
    )


def read_selector(document: Any) -> Selector:
    """Read a label selector; None or an empty one selects nothing."""
    if not isinstance(document, Mapping):
        return Selector()
    labels = document.get("matchLabels") or {}
    requirements = [Requirement(str(k), "In", frozenset([str(v)])) for k, v in labels.items()]
    requirements += [
        Requirement(str(e["key"]), str(e["operator"]), frozenset(map(str, e.get("values") or ())))
        for e in document.get("matchExpressions") or ()
    ]
    return Selector(tuple(requirements))


def read_span(text: object, path: str) -> float:
    """Return seconds from ``90``, ``500ms``, ``90s``, ``90m`` or ``24h``.

    Raises:
        ValueError: it is none; names `path`.
    """
    found = _SPAN.fullmatch(str(text))
    if found is None:
        raise ValueError(f"{path}: {text!r} is not a duration; give one such as 90m or 24h")
    return float(found[1]) * _UNITS[found[2] or ""]


def is_older(version: str, other: str) -> bool:
    """Whether a resource version comes before another one; where one is unknown, it does not."""
    return version.isdigit() and other.isdigit() and int(version) < int(other)


def _object(document: Document, name: str, path: str = "") -> Document:
    found = document.get(name)
    if not isinstance(found, Mapping):
        raise ValueError(f"{path or name}: is missing, or no object")  # noqa: TRY004
    return found


def _text(document: Document, name: str, path: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or not found:
        raise ValueError(f"{path}: is missing, or no text")
    return found


def _store(document: Document) -> Store:
    endpoints = document.get("endpoints")
    if not isinstance(endpoints, Sequence) or isinstance(endpoints, str) or not endpoints:
        raise ValueError("spec.etcd.endpoints: is missing; name at least one")
    return Store(
        tuple(str(endpoint) for endpoint in endpoints),
        str(document.get("tlsSecret") or ""),
        bool(document.get("clientCertificate")),
        str(document.get("user") or ""),
        str(document.get("passwordSecret") or ""),
    )


def _pods(document: Any, path: str) -> Selector:
    """Read a selector of pods, which must not follow the leader."""
    found = read_selector(document)
    if any(each.key == ROLE for each in found.requirements):
        part = "matchLabels" if ROLE in (document.get("matchLabels") or {}) else "matchExpressions"
        raise ValueError(f"{path}.{part}: must not hold {ROLE}, which changes with the leader")
    return found


def _longest_term(said: object) -> float | None:
    if said is None:
        return None
    seconds = read_span(said, "spec.maxTermDuration")
    if seconds < _SHORTEST_TERM:
        raise ValueError("spec.maxTermDuration: must be 60s or more")
    return seconds


def _preferred(document: Document) -> Preferred:
    return Preferred(
        str(document.get("candidate") or ""),
        _pods(document.get("podSelector"), "spec.preferred.podSelector"),
        read_selector(document.get("nodeSelector")),
    )


def _window(document: Document) -> Window:
    path = "spec.maintenanceWindows"
    found = _CLOCK.fullmatch(str(document.get("start", "")))
    if found is None:
        raise ValueError(f"{path}.start: {document.get('start')!r} is no time of day such as 02:30")
    names = document.get("days") or DAYS
    if unknown := [day for day in names if day not in DAYS]:
        raise ValueError(f"{path}.days: {unknown[0]!r} is unknown; use {', '.join(DAYS)}")
    seconds = read_span(document.get("duration", ""), f"{path}.duration")
    if seconds < _SHORTEST_WINDOW:
        raise ValueError(f"{path}.duration: must be 1m or more")
    return Window(
        frozenset(DAYS.index(day) for day in names),
        int(found[1]) * 3600.0 + int(found[2]) * 60.0,
        seconds,
    )


def _service(election: str, document: Any) -> Service | None:
    if not isinstance(document, Mapping) or not document.get("ports"):
        return None
    ports = tuple(
        Port(
            str(port["name"]),
            int(port["port"]),
            int(port.get("targetPort") or port["port"]),
            str(port.get("protocol") or "TCP"),
            str(port.get("appProtocol") or ""),
        )
        for port in document["ports"]
    )
    given = str(document.get("name") or "")
    name = given or f"{election}-leader"
    if _LABEL.fullmatch(name) is None:
        problem = "must be a DNS label, such as master-leader"
        if not given:
            problem = (
                "is missing, and the Election's own name with -leader cannot be a Service's; give "
                "one such as master-leader"
            )
        raise ValueError(f"spec.service.name: {problem}")
    return Service(name, ports)
