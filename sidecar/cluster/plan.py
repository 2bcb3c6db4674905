"""What the chart says about an etcd: one file in JSON, read by every command that cares for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.errors import ConfigError
from sidecar.etcd.endpoints import Endpoint, parse_endpoints

_TEXTS = ("statefulSet", "namespace", "peerUrl", "clientUrl", "endpoints", "token")


@dataclass(frozen=True, slots=True)
class Plan:
    """An etcd as it shall be.

    Attributes:
        stateful_set: its name; a member is called `<name>-<ordinal>`.
        peer_url: where members reach a member; `{name}` stands for its name.
        client_url: the same for its clients.
        endpoints: where its clients reach any member.
        token: tells this cluster from others at its beginning.
        replaces_lost: give a member that lost its data a new life instead of stopping.
        config: what goes into etcd's configuration file besides.
    """

    stateful_set: str
    namespace: str
    replicas: int
    peer_url: str
    client_url: str
    endpoints: tuple[Endpoint, ...]
    token: str
    replaces_lost: bool
    config: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read the file.

        Raises:
            ConfigError: with all problems.
        """
        try:
            given = json.loads(path.read_text())
        except (OSError, ValueError) as exc:
            raise ConfigError([f"--plan: cannot read {str(path)!r}: {exc}"]) from exc
        problems = [f"--plan: {p}" for p in _problems(given)]
        if problems:
            raise ConfigError(problems)
        return cls(
            given["statefulSet"],
            given["namespace"],
            given["replicas"],
            given["peerUrl"],
            given["clientUrl"],
            parse_endpoints(given["endpoints"]),
            given["token"],
            given.get("autoReplaceMember", False),
            given.get("config", {}),
        )

    def name_of(self, ordinal: int) -> str:
        """Return the name of a member, which is that of its pod."""
        return f"{self.stateful_set}-{ordinal}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all members that there shall be."""
        return tuple(self.name_of(ordinal) for ordinal in range(self.replicas))

    def peer_url_of(self, name: str) -> str:
        """Return where other members reach this one."""
        return self.peer_url.replace("{name}", name)

    def client_url_of(self, name: str) -> str:
        """Return where clients reach this member."""
        return self.client_url.replace("{name}", name)


def _problems(given: object) -> list[str]:
    if not isinstance(given, dict):
        return ["holds no object"]
    problems = [
        f"{name} is {given.get(name)!r}; give a text"
        for name in _TEXTS
        if not isinstance(given.get(name), str) or not given[name]
    ]
    replicas = given.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 1:
        problems.append(f"replicas is {replicas!r}; give a number from 1")
    if not isinstance(given.get("config", {}), dict):
        problems.append("config is no object")
    if not problems:
        try:
            parse_endpoints(given["endpoints"])
        except ValueError as exc:
            problems.append(f"endpoints: {exc}")
    return problems
