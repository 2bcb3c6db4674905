"""What the kind refuses of `spec.sidecar`, for objects that are older than its rules. Pure.

An election with sidecars that others made is looked after all the same: this is asked when a
sidecar is injected, which would refuse these options and never start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sidecar import addresses, values

_DEFAULT_STATUS_PORT = 4040
_LEAST_INTERVAL = 0.1
_VARIABLE = re.compile(r"\$\([A-Z_]+\)")  # the kubelet fills it in


def status_port(options: Mapping[str, Any]) -> int:
    """Return the port where the sidecar serves its status."""
    return int(options.get("statusPort") or _DEFAULT_STATUS_PORT)


def check(options: Mapping[str, Any]) -> None:
    """Look at what was written as `spec.sidecar`.

    Raises:
        ValueError: a sentence that names the field that is wrong, as the kind says it.
    """
    path = "spec.sidecar"
    if _span(options, "ttl", path) == 0:
        raise ValueError(f"{path}.ttl: must be more than 0, such as 5s")
    _span(options, "drain", path)
    _span(options, "linger", path)
    port = status_port(options)
    if any(int(rule["port"]) == port for rule in options.get("forward") or ()):
        raise ValueError(
            f"{path}.forward: must not listen on spec.sidecar.statusPort, where the sidecar itself "
            "listens; give another port"
        )
    _check_health(options.get("health") or {}, f"{path}.health")


def _check_health(health: Mapping[str, Any], path: str) -> None:
    interval = _span(health, "interval", path)
    if interval is not None and interval < _LEAST_INTERVAL:
        raise ValueError(f"{path}.interval: must be 100ms or more")
    if not _is_read(health.get("http"), addresses.parse_url):
        raise ValueError(f"{path}.http: must be a URL, such as http://127.0.0.1:8080/healthz")
    if not _is_read(health.get("tcp"), addresses.parse_target):
        raise ValueError(f"{path}.tcp: must be HOST:PORT, such as 127.0.0.1:8080")
    # No rule of the kind can tell this.
    if not _is_read(health.get("exec"), values.parse_command):
        raise ValueError(f"{path}.exec: must be a command line, such as 'pg_isready -q'")


def _span(options: Mapping[str, Any], name: str, path: str) -> float | None:
    if name not in options:
        return None
    try:
        return values.parse_duration(str(options[name]))
    except ValueError:
        raise ValueError(f"{path}.{name}: must be a duration, such as 5s, 500ms or 2m") from None


def _is_read(text: object, parse: Callable[[str], object]) -> bool:
    """Whether the sidecar's own parser takes it, once its variables are filled in."""
    if text is None:
        return True
    try:
        parse(_VARIABLE.sub("a", str(text).replace("[$(POD_IP)]", "[::1]")))
    except ValueError:
        return False
    return True
