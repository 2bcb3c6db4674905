"""The settings of the forwarder that need more than one look."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar import values
from sidecar.addresses import HostPort
from sidecar.forward.rules import Rule, clashes, overlap, parse_rule
from sidecar.reader import Reader
from sidecar.values import quoted

_LEAST_WAIT = 0.1
_ONLY_WITH_IT = (
    "forward_wait",
    "forward_drain",
    "forward_linger",
    "forward_max_connections",
    "forward_proxy_protocol",
)


def read_rules(reader: Reader) -> tuple[Rule, ...]:
    """Return what to forward; each pair of ports that is wrong is a problem of its own."""
    text = reader.given.get("forward")
    if text is None:
        for field in _ONLY_WITH_IT:
            if field in reader.given:
                reader.warn(field, "has no effect without --forward")
        return ()
    rules = []
    for part in text.split(","):
        try:
            rules.append(parse_rule(part.strip()))
        except ValueError as exc:
            reader.problem("forward", str(exc))
    for clash in clashes(rules):
        reader.problem("forward", clash)
    return tuple(rules)


def parse_wait(text: str) -> float:
    """Return seconds to wait for a leader, which is time enough to connect to one."""
    seconds = values.parse_duration(text)
    if seconds < _LEAST_WAIT:
        raise ValueError(f"{quoted(text)} is too short; give at least 100ms")
    return seconds


def compare(
    reader: Reader, rules: Sequence[Rule], *, http: HostPort, wait: float, drain: float
) -> None:
    """Note what does not go together with the other settings."""
    if rules and wait <= drain:
        reader.warn(
            "forward_wait",
            f"({wait:g} s) is not above --drain ({drain:g} s): connections that arrive at the "
            "begin of a step-down are closed before the next leader",
        )
    if any(overlap(rule.listen, http) for rule in rules):
        reader.problem("forward", f"listens on the port of --http, {http}; change one")
