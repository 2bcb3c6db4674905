"""The settings of the operator: read once, all problems told at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sidecar import values
from sidecar.addresses import HostPort, parse_listen
from sidecar.errors import ConfigError
from sidecar.operator.injection import Defaults
from sidecar.operator.keeping import Webhooks
from sidecar.settings import StoreSettings

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LEAST_TTL, _LARGEST_TTL = 5.0, 120.0


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """All settings of `leader-sidecar operator`. Durations are seconds.

    Attributes:
        store: where the operator's own leadership is, and under which name.
        id: of this replica, the name of its pod.
        ttl: of its own lease.
        namespaces: to look after; none for the whole cluster.
        http: where metrics and probes are served.
        webhook: where admission is served.
        webhooks: the certificate; None serves no admission.
    """

    store: StoreSettings
    id: str
    ttl: float
    namespaces: tuple[str, ...]
    http: HostPort
    webhook: HostPort
    webhooks: Webhooks | None
    defaults: Defaults


def read(
    store: StoreSettings, given: Mapping[str, str], environment: Mapping[str, str]
) -> OperatorSettings:
    """Check what was given.

    Args:
        store: read already.
        given: texts by the names of the options, with defaults.
        environment: for what Kubernetes tells a pod.

    Raises:
        ConfigError: with all problems, one sentence each.
    """
    problems: list[str] = []

    def listen(name: str) -> HostPort:
        try:
            return parse_listen(given[name])
        except ValueError as exc:
            problems.append(f"--{name.replace('_', '-')} {exc}")
            return HostPort("", 0)

    def names(name: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in given[name].split(",") if part.strip())
        for each in found:
            if _NAME.fullmatch(each) is None:
                flag = name.replace("_", "-")
                problems.append(f"--{flag} {values.quoted(each)} is no name of Kubernetes")
        return found

    ttl = _ttl(given["ttl"], problems)
    pod = given["id"] or environment.get("POD_NAME", "")
    if not pod:
        problems.append("--id is missing, and POD_NAME is not set; give a name of its own")
    settings = OperatorSettings(
        store=store,
        id=pod,
        ttl=ttl,
        namespaces=names("namespaces"),
        http=listen("http"),
        webhook=listen("webhook"),
        webhooks=_webhooks(given, names, environment, problems),
        defaults=Defaults(given["sidecar_image"], given["sidecar_pull_policy"]),
    )
    if problems:
        raise ConfigError(problems)
    return settings


def _ttl(text: str, problems: list[str]) -> float:
    try:
        ttl = values.parse_duration(text)
    except ValueError as exc:
        problems.append(f"--ttl {exc}")
        return _LEAST_TTL
    if not _LEAST_TTL <= ttl <= _LARGEST_TTL:
        problems.append(
            f"--ttl {values.quoted(text)} is not from {_LEAST_TTL:g} to {_LARGEST_TTL:g} seconds"
        )
    return ttl


def _webhooks(
    given: Mapping[str, str],
    names: Callable[[str], tuple[str, ...]],
    environment: Mapping[str, str],
    problems: list[str],
) -> Webhooks | None:
    if not given["webhook_service"]:
        return None
    namespace = environment.get("POD_NAMESPACE", "")
    if not namespace:
        problems.append("--webhook-service needs POD_NAMESPACE, from the field metadata.namespace")
    service = given["webhook_service"]
    secret = given["certificate_secret"] or f"{service}-tls"
    hosts: Sequence[str] = (f"{service}.{namespace}.svc", f"{service}.{namespace}")
    return Webhooks(
        namespace=namespace,
        secret=secret,
        names=hosts,
        is_ours=given["certificates"] == "own",
        mutating=names("mutating_webhooks"),
        validating=names("validating_webhooks"),
    )
