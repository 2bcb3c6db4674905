"""What the user asked for: frozen, checked as a whole, all problems told at once.

The values come as texts, from flags and environment alike; `sidecar.flags` says which there are.
Nothing is connected to here: what only etcd can tell (a wrong password, a certificate that it does
not accept) is told by its adapter.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sidecar import addresses, values
from sidecar.addresses import HostPort, HttpTarget
from sidecar.core.keys import name_problem
from sidecar.core.lease import Timing
from sidecar.flags import BY_FIELD
from sidecar.forward.rules import Rule
from sidecar.forward_settings import compare, parse_wait, read_rules
from sidecar.kube import access
from sidecar.kube.access import PodAccess
from sidecar.reader import Reader
from sidecar.values import quoted

ReadyWhen = Literal["candidate", "leader"]
StepDownOrder = Literal["status-first", "program-first"]
LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_READY_WHEN: tuple[ReadyWhen, ...] = ("candidate", "leader")
_STEP_DOWN_ORDER: tuple[StepDownOrder, ...] = ("status-first", "program-first")
_LOG_FORMAT: tuple[LogFormat, ...] = ("text", "json")
_LOG_LEVEL: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
_HIGHEST_PRIORITY = 1_000_000
_MOST_FAILURES = 1000
_LEAST_INTERVAL = 0.1
_LEAST_TTL = 2
_LARGEST_TTL = 9_000_000_000  # etcd's own limit
_MOST_CONNECTIONS = 100_000
_PROBES = ("health_http", "health_exec", "health_tcp")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Which election, and how to reach the etcd it is in.

    Attributes:
        endpoints: the parts of the list as given; `sidecar.etcd.parse_endpoints` accepts them.
        user: etcd's user, "" for none.
        warnings: sentences for the log, each naming a flag.
    """

    election: str
    endpoints: tuple[str, ...]
    user: str = ""
    password_file: Path | None = None
    cacert: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Mapping[str, str]) -> StoreSettings:
        """Read these settings alone; argument and errors are those of `Settings.read`."""
        reader = Reader(given)
        store = _read_store(reader)
        reader.raise_problems()
        return replace(store, warnings=tuple(reader.warnings))


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of `run` and `exec`. Durations are seconds.

    Attributes:
        priority: 0 only observes.
        margin: None for the least one that the granted TTL allows.
        label: the pod to label, or None for none.
        warnings: sentences for the log, each naming a flag; all there are.
    """

    store: StoreSettings
    id: str
    advertise: str
    priority: int
    ttl: int
    margin: float | None
    drain: float
    step_down_order: StepDownOrder
    accept_token_reset: bool
    health_http: HttpTarget | None
    health_exec: tuple[str, ...] | None
    health_tcp: HostPort | None
    health_interval: float
    health_failures: int
    forward: tuple[Rule, ...]
    forward_wait: float
    forward_drain: float
    forward_linger: float
    forward_max_connections: int
    forward_proxy_protocol: bool
    status_dir: Path
    http: HostPort
    ready_when: ReadyWhen
    label: PodAccess | None
    service_account_dir: Path
    log_format: LogFormat
    log_level: LogLevel
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(
        cls,
        given: Mapping[str, str],
        *,
        environment: Mapping[str, str] | None = None,
        own_address: Callable[[], str | None] = addresses.own_address,
    ) -> Settings:
        """Check what was given, and fill in defaults.

        Args:
            given: texts by the names of the fields (`Flag.field`); what is absent was not given.
            environment: for what Kubernetes tells a pod; this process's own if None.
            own_address: finds an address of this machine where neither tells one.

        Raises:
            ConfigError: with all problems, one sentence each.
            TypeError: a name in `given` is no setting.
        """
        reader = Reader(given)
        environment = os.environ if environment is None else environment
        store = _read_store(reader)
        ttl = _read_ttl(reader)
        account = reader.value("service_account_dir", values.parse_path)
        settings = cls(
            store=store,
            id=_read_id(reader, environment),
            advertise=_read_advertise(reader, environment, own_address),
            priority=reader.whole("priority", 0, _HIGHEST_PRIORITY),
            ttl=ttl,
            margin=_read_margin(reader, ttl),
            drain=reader.value("drain", values.parse_duration),
            step_down_order=reader.choice("step_down_order", _STEP_DOWN_ORDER),
            accept_token_reset=reader.value("accept_token_reset", values.parse_switch),
            health_http=reader.optional("health_http", addresses.parse_url),
            health_exec=_read_health_exec(reader),
            health_tcp=reader.optional("health_tcp", addresses.parse_target),
            health_interval=reader.value("health_interval", _parse_interval),
            health_failures=reader.whole("health_failures", 1, _MOST_FAILURES),
            forward=read_rules(reader),
            forward_wait=reader.value("forward_wait", parse_wait),
            forward_drain=reader.value("forward_drain", values.parse_duration),
            forward_linger=reader.value("forward_linger", values.parse_duration),
            forward_max_connections=reader.whole("forward_max_connections", 1, _MOST_CONNECTIONS),
            forward_proxy_protocol=reader.value("forward_proxy_protocol", values.parse_switch),
            status_dir=reader.value("status_dir", values.parse_directory),
            http=reader.value("http", addresses.parse_listen),
            ready_when=reader.choice("ready_when", _READY_WHEN),
            label=_read_label(reader, environment, account),
            service_account_dir=account,
            log_format=reader.choice("log_format", _LOG_FORMAT),
            log_level=reader.choice("log_level", _LOG_LEVEL),
        )
        reader.at_most_one(_PROBES)
        compare(
            reader,
            settings.forward,
            http=settings.http,
            wait=settings.forward_wait,
            drain=settings.drain,
        )
        reader.raise_problems()
        return replace(settings, warnings=tuple(reader.warnings))


def _read_store(reader: Reader) -> StoreSettings:
    election = reader.given.get("election")
    if election is None:
        reader.problem("election", "is missing; give a name such as /resources/election")
    elif problem := name_problem(election):
        reader.problem("election", f"is refused: {problem}")
    store = StoreSettings(
        election=election or "",
        endpoints=_read_endpoints(reader),
        user=reader.optional("user", values.parse_user) or "",
        password_file=reader.optional("password_file", values.parse_password_file),
        cacert=reader.optional("cacert", values.parse_file),
        cert=reader.optional("cert", values.parse_file),
        key=reader.optional("key", values.parse_file),
    )
    for one, other in (("user", "password_file"), ("cert", "key")):
        for field, missing in ((one, other), (other, one)):
            if field in reader.given and missing not in reader.given:
                reader.problem(field, f"is given without {BY_FIELD[missing].flag}; give both")
    for field, secret in (("password_file", store.password_file), ("key", store.key)):
        if secret is not None and (exposed := values.exposure(secret)):
            reader.warn(field, exposed)
    return store


def _read_endpoints(reader: Reader) -> tuple[str, ...]:
    # Here, because `--help` must not pay for what the adapter imports.
    from sidecar.etcd.endpoints import parse_endpoints  # noqa: PLC0415

    endpoints = reader.value("endpoints", parse_endpoints)
    if not endpoints[0].is_secure and not reader.is_wrong("endpoints"):
        for field in ("cacert", "cert", "key"):
            if field in reader.given:
                reader.problem(
                    field,
                    f"has no effect on {quoted(str(endpoints[0]))}; write https:// in --endpoints, "
                    f"or leave {BY_FIELD[field].flag} out",
                )
    return tuple(str(endpoint) for endpoint in endpoints)


def _read_id(reader: Reader, environment: Mapping[str, str]) -> str:
    pod = environment.get("POD_NAME") or None
    if pod is None and "id" not in reader.given:
        # Never the host's name: containers on the host's network share it.
        reader.problem(
            "id",
            "is missing, and POD_NAME is not set; give a name that no other candidate has, in "
            "Kubernetes by the environment variable POD_NAME from the field metadata.name",
        )
    return reader.optional("id", values.parse_id, pod, " (from POD_NAME)") or ""


def _read_advertise(
    reader: Reader, environment: Mapping[str, str], own_address: Callable[[], str | None]
) -> str:
    text = environment.get("POD_IP") or None
    if text is None and "advertise" not in reader.given:
        text = own_address()
        if text is None:
            reader.problem(
                "advertise",
                "is missing, POD_IP is not set, and this machine has no IPv4 address but the "
                "loopback's; give HOST or HOST:PORT, such as 10.0.0.7:9090",
            )
    return reader.optional("advertise", addresses.parse_advertised, text, " (from POD_IP)") or ""


def _read_label(reader: Reader, environment: Mapping[str, str], account: Path) -> PodAccess | None:
    is_wanted = reader.optional("label", values.parse_switch)
    if is_wanted is None:
        is_told = "label" in reader.given
        if is_told or not access.is_inside(environment):
            return None
    elif not is_wanted:
        return None
    found, missing = access.find(environment, account)
    for sentence in missing if is_wanted else ():
        reader.problem("label", f"cannot be done: {sentence}; or leave --label out")
    if missing and not is_wanted:
        reader.warn(
            "label", f"is off: {'; '.join(missing)}; --label=false tells that this is meant"
        )
    return found


def _read_ttl(reader: Reader) -> int:
    seconds = reader.value("ttl", _parse_ttl)
    ttl = math.ceil(seconds)
    text = quoted(reader.given.get("ttl", ""))
    if ttl != seconds:
        reader.warn("ttl", f"{text} is not in whole seconds, as etcd needs it; taking {ttl}s")
    if ttl < _LEAST_TTL:
        reader.warn(
            "ttl",
            f"{text} is below 2s; etcd raises it to 2 s, and the sidecar uses what was granted",
        )
    return ttl


def _parse_ttl(text: str) -> float:
    seconds = values.parse_duration(text)
    if not 0 < seconds <= _LARGEST_TTL:
        raise ValueError(f"{quoted(text)} cannot be a lease's; give at least 2s, such as 5s")
    return seconds


def _read_margin(reader: Reader, ttl: int) -> float | None:
    def parse(text: str) -> float:
        margin = values.parse_duration(text)
        if reader.is_wrong("ttl"):
            return margin
        try:
            return Timing(ttl, margin).margin
        except ValueError as exc:
            raise ValueError(
                f"{quoted(text)} is refused: {exc}; leave it out for the least"
            ) from exc

    return reader.optional("margin", parse)


def _parse_interval(text: str) -> float:
    seconds = values.parse_duration(text)
    if seconds < _LEAST_INTERVAL:
        raise ValueError(f"{quoted(text)} is too short; give at least 100ms")
    return seconds


def _read_health_exec(reader: Reader) -> tuple[str, ...] | None:
    command = reader.optional("health_exec", values.parse_command)
    if command is not None and shutil.which(command[0]) is None:
        reader.warn(
            "health_exec",
            f"names the program {quoted(command[0])}, which is not there; until it is, the probe "
            "fails and this candidate does not stand",
        )
    return command
