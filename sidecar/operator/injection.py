"""The sidecar, put into a pod that asked for it. Pure; the webhook and `inject -f` both use it.

Idempotent, and safe to be called again: a pod that has an injected sidecar gets only what its other
containers lack, and one that has a container or a volume of our name from its owner is left as it
is. The sidecar is a native one, behind the pod's own init containers, as in the chart.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.operator import sidecar_options
from sidecar.operator.names import ELECTION, INJECT, LABELLED_BY, OPERATOR, SIDECAR
from sidecar.operator.spec import Election, read_span

STATUS_DIR = "/run/leader-sidecar"
# The pod's service account is the user's: the operator writes the label.
_OWN_ARGUMENTS = (f"--status-dir={STATUS_DIR}", "--label=false")
_CREDENTIALS = "/etc/leader-sidecar"
_CREDENTIALS_VOLUME = "leader-sidecar-etcd"
_DEFAULT_GRACE = 30  # seconds, Kubernetes' own
_DEFAULT_LINGER = 5.0
_SPARE = 5  # seconds

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What the operator adds where an Election says nothing."""

    image: str
    pull_policy: str = "IfNotPresent"


def wants_sidecar(metadata: Mapping[str, Any], namespace_labels: Mapping[str, str]) -> bool:
    """Whether the pod, or else its namespace, asks for a sidecar."""
    said = (metadata.get("labels") or {}).get(INJECT)
    return (namespace_labels.get(INJECT) if said is None else said) == "true"


def election_of(metadata: Mapping[str, Any]) -> str:
    """Return the name of the Election that a pod's annotation names, or ""."""
    return str((metadata.get("annotations") or {}).get(ELECTION, ""))


def has_sidecar(pod: Mapping[str, Any]) -> bool:
    """Whether a pod has the sidecar, by whomever."""
    spec = pod.get("spec") or {}
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return any(c.get("name") == SIDECAR for c in containers) or any(
        v.get("name") == SIDECAR for v in spec.get("volumes") or ()
    )


def is_injected(pod: Mapping[str, Any]) -> bool:
    """Whether the pod's sidecar is one that `injected` has put there, and not its owner's."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    spec = pod.get("spec") or {}
    return (
        annotations.get(LABELLED_BY) == OPERATOR
        and any(_is_ours(c) for c in spec.get("initContainers") or ())
        and any(v.get("name") == SIDECAR and "emptyDir" in v for v in spec.get("volumes") or ())
    )


def completed(pod: Mapping[str, Any]) -> Document:
    """Return a pod that has a sidecar with what its other containers lack.

    Another webhook may have added one after the sidecar was injected. Nothing is added where the
    sidecar is the owner's.
    """
    result: Document = copy.deepcopy(dict(pod))
    if is_injected(pod):
        _mount_everywhere(result["spec"])
    return result


def injected(pod: Mapping[str, Any], election: Election, defaults: Defaults) -> Document:
    """Return the pod (or pod template) with the sidecar in it; for one that has it, see above.

    Raises:
        ValueError: with `spec.sidecar` it would not start; a sentence that names the field.
    """
    if has_sidecar(pod):
        return completed(pod)
    sidecar_options.check(election.sidecar)
    result: Document = copy.deepcopy(dict(pod))
    metadata = result.setdefault("metadata", {})
    annotations = metadata["annotations"] = dict(metadata.get("annotations") or {})
    annotations |= {ELECTION: election.name, LABELLED_BY: OPERATOR}
    spec = result["spec"]
    _mount_everywhere(spec)
    spec["initContainers"] = [*_of(spec, "initContainers"), _container(election, defaults)]
    spec["volumes"] = [*_of(spec, "volumes"), *_volumes(election)]
    given = spec.get("terminationGracePeriodSeconds")
    # The program keeps what it has; the drain and the forwarder's last words come on top.
    own = _DEFAULT_GRACE if given is None else int(given)
    spec["terminationGracePeriodSeconds"] = own + _extra_grace(election)
    return result


def patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Document]:
    """Return the JSON patch (RFC 6902) from one pod to the other: whole fields, no more."""
    found: list[Document] = []
    for part in ("metadata", "spec"):
        old, new = before.get(part) or {}, after[part]
        if part not in before:
            found.append({"op": "add", "path": f"/{part}", "value": new})
            continue
        for name, value in new.items():
            if name not in old:
                found.append({"op": "add", "path": f"/{part}/{name}", "value": value})
            elif old[name] != value:
                found.append({"op": "replace", "path": f"/{part}/{name}", "value": value})
    return found


def _of(spec: Document, name: str) -> list[Document]:
    return list(spec.get(name) or ())


def _is_ours(container: Mapping[str, Any]) -> bool:
    own = {"name": SIDECAR, "mountPath": STATUS_DIR}
    return (
        container.get("name") == SIDECAR
        and set(_OWN_ARGUMENTS) <= set(container.get("args") or ())
        and any(own.items() <= mount.items() for mount in container.get("volumeMounts") or ())
    )


def _mount_everywhere(spec: Document) -> None:
    for container in _of(spec, "containers") + _of(spec, "initContainers"):
        mounts = _of(container, "volumeMounts")
        if all(mount.get("mountPath") != STATUS_DIR for mount in mounts):
            mounts.append({"name": SIDECAR, "mountPath": STATUS_DIR, "readOnly": True})
            container["volumeMounts"] = mounts


def _extra_grace(election: Election) -> int:
    options = election.sidecar
    drain = read_span(options.get("drain", "0"), "spec.sidecar.drain")
    linger = 0.0
    if options.get("forward"):
        linger = read_span(options.get("linger", _DEFAULT_LINGER), "spec.sidecar.linger")
    return math.ceil(drain + linger) + _SPARE


def _container(election: Election, defaults: Defaults) -> Document:
    options = election.sidecar
    port = sidecar_options.status_port(options)
    probe = {"httpGet": {"path": "/livez", "port": port}}
    ports = [{"name": "ls-status", "containerPort": port}]
    ports += [
        {"name": f"ls-fwd-{rule['port']}", "containerPort": int(rule["port"])}
        for rule in options.get("forward") or ()
    ]
    return {
        "name": SIDECAR,
        "image": options.get("image") or defaults.image,
        "imagePullPolicy": options.get("imagePullPolicy") or defaults.pull_policy,
        "restartPolicy": "Always",
        "args": _arguments(election, port),
        "env": _environment(election),
        "ports": ports,
        "startupProbe": probe | {"periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": probe | {"periodSeconds": 5, "timeoutSeconds": 3, "failureThreshold": 3},
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": port},
            "periodSeconds": 2,
            "failureThreshold": 5,
        },
        "lifecycle": {"preStop": {"exec": {"command": [SIDECAR, "retire", "--wait"]}}},
        "resources": options.get("resources")
        or {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _own_mounts(election),
    }


def _arguments(election: Election, port: int) -> list[str]:
    options = election.sidecar
    found = [
        "run",
        f"--election={election.election}",
        f"--endpoints={','.join(election.store.endpoints)}",
        f"--http=:{port}",
        *_OWN_ARGUMENTS,
    ]
    found += [
        f"--{name}={options[name]}" for name in ("ttl", "drain", "priority") if name in options
    ]
    health = options.get("health") or {}
    for name in ("http", "exec", "tcp", "interval", "failures"):
        if name in health:
            found.append(f"--health-{name}={health[name]}")
    if rules := options.get("forward"):
        found.append("--forward=" + ",".join(f":{rule['port']}={rule['to']}" for rule in rules))
        if "linger" in options:
            found.append(f"--forward-linger={options['linger']}")
    return found + [str(argument) for argument in options.get("extraArgs") or ()]


def _environment(election: Election) -> list[Document]:
    fields = {
        "POD_NAME": "metadata.name",
        "POD_NAMESPACE": "metadata.namespace",
        "POD_UID": "metadata.uid",
        "POD_IP": "status.podIP",
    }
    found: list[Document] = [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in fields.items()
    ]
    store, texts = election.store, dict[str, str]()
    if store.tls_secret:
        texts["CACERT"] = f"{_CREDENTIALS}/tls/ca.crt"
        if store.client_certificate:
            texts["CERT"] = f"{_CREDENTIALS}/tls/tls.crt"
            texts["KEY"] = f"{_CREDENTIALS}/tls/tls.key"
    if store.user:
        texts["USER"] = store.user
        texts["PASSWORD_FILE"] = f"{_CREDENTIALS}/user/password"
    return found + [{"name": f"LEADER_SIDECAR_{k}", "value": v} for k, v in texts.items()]


def _own_mounts(election: Election) -> list[Document]:
    mounts: list[Document] = [{"name": SIDECAR, "mountPath": STATUS_DIR}]
    if _secrets(election):
        mounts.append({"name": _CREDENTIALS_VOLUME, "mountPath": _CREDENTIALS, "readOnly": True})
    return mounts


def _volumes(election: Election) -> list[Document]:
    found: list[Document] = [
        {"name": SIDECAR, "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}}
    ]
    if sources := _secrets(election):
        # Readable for all in the container, which is the sidecar's alone.
        found.append(
            {"name": _CREDENTIALS_VOLUME, "projected": {"defaultMode": 0o444, "sources": sources}}
        )
    return found


def _secrets(election: Election) -> list[Document]:
    store = election.store
    found: list[Document] = []
    if store.tls_secret:
        names = ["ca.crt", *(["tls.crt", "tls.key"] if store.client_certificate else [])]
        items = [{"key": name, "path": f"tls/{name}"} for name in names]
        found.append({"secret": {"name": store.tls_secret, "items": items}})
    if store.password_secret:
        items = [{"key": "password", "path": "user/password"}]
        found.append({"secret": {"name": store.password_secret, "items": items}})
    return found
