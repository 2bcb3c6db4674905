"""What to forward: a port to listen on, and the port at the leader."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.addresses import HostPort, parse_listen
from sidecar.values import parse_whole, quoted

_HIGHEST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """Clients at `listen` reach `port` at the leader's host."""

    listen: HostPort
    port: int

    def __str__(self) -> str:
        return f"{self.listen}={self.port}"

    @property
    def is_for_this_machine_only(self) -> bool:
        """Whether it listens on the loopback interface."""
        try:
            return ipaddress.ip_address(self.listen.host).is_loopback
        except ValueError:
            return self.listen.host == "localhost"


def parse_rule(text: str) -> Rule:
    """Parse ``PORT=PORT`` or ``[HOST]:PORT=PORT``.

    Raises:
        ValueError: a sentence that says what is wrong and what would be right.
    """
    here, _, there = text.partition("=")
    try:
        return Rule(
            parse_listen(here if ":" in here else f":{here}"),
            parse_whole(there, 1, _HIGHEST_PORT),
        )
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is no pair of ports; write PORT=PORT or HOST:PORT=PORT, the own one "
            "first and the leader's second, such as 8080=9090"
        ) from None


def clashes(rules: Sequence[Rule]) -> list[str]:
    """Return, as ends of sentences, why these rules cannot stand beside one another."""
    found = []
    for number, rule in enumerate(rules):
        if any(overlap(rule.listen, other.listen) for other in rules[:number]):
            found.append(f"{quoted(str(rule))} listens where another one does; give another port")
        if rule.is_for_this_machine_only or rule.listen.port == 0:
            continue
        if any(rule.listen.port == other.port for other in rules):
            found.append(
                f"{quoted(str(rule))} listens on a port that connections go to at the leader, so "
                "they would go round in a loop; listen on another port, or on 127.0.0.1"
            )
    return found


def overlap(one: HostPort, other: HostPort) -> bool:
    """Whether nobody can listen on both."""
    is_same_port = one.port == other.port != 0
    return is_same_port and (one.host == other.host or not one.host or not other.host)
