"""What is refused of an Election in the same words: by its kind, and by the operator.

The operator may see objects that are older than the kind's rules.
"""

from typing import Any

Case = tuple[dict[str, Any], str]

_PORTS = [{"name": "http", "port": 80}]
_ROLE = "leader-sidecar.io/role"
_ASKS: dict[str, Any] = {
    "matchLabels": {"matchLabels": {_ROLE: "leader"}},
    "matchExpressions": {"matchExpressions": [{"key": _ROLE, "operator": "Exists"}]},
}
_FOLLOWS = "must not hold leader-sidecar.io/role, which changes with the leader"
_NO_SERVICE = (
    "spec.service.name: is missing, and the Election's own name with -leader cannot be a "
    "Service's; give one such as master-leader"
)

BY_SPEC: dict[str, Case] = {
    **{
        f"a term of {said}": (
            {"maxTermDuration": said},
            "spec.maxTermDuration: must be 60s or more",
        )
        for said in ("0s", "0m", "0h", "0.0h", "59s", "59.9s", "0.9m", "0.01h")
    },
    **{
        f"a window of {said}": (
            {"maintenanceWindows": [{"start": "02:30", "duration": said}]},
            "spec.maintenanceWindows.duration: must be 1m or more",
        )
        for said in ("0m", "0h", "0.9m", "0.01h")
    },
    **{
        f"the role selects by {part}": ({"selector": said}, f"spec.selector.{part}: {_FOLLOWS}")
        for part, said in _ASKS.items()
    },
    **{
        f"the role is preferred by {part}": (
            {"preferred": {"podSelector": said}},
            f"spec.preferred.podSelector.{part}: {_FOLLOWS}",
        )
        for part, said in _ASKS.items()
    },
    "a Service's bad name": (
        {"service": {"name": "A", "ports": _PORTS}},
        "spec.service.name: must be a DNS label, such as master-leader",
    ),
}
"""A spec, and the sentence with which it is refused."""

BY_NAME: dict[str, Case] = {
    "a.b": ({"service": {"ports": _PORTS}}, _NO_SERVICE),
    "1st": ({"service": {"ports": _PORTS}}, _NO_SERVICE),
    "a" * 57: ({"service": {"ports": _PORTS}}, _NO_SERVICE),
}
"""As `BY_SPEC`, by the name of the Election."""

_URL = "spec.sidecar.health.http: must be a URL, such as http://127.0.0.1:8080/healthz"
_TARGET = "spec.sidecar.health.tcp: must be HOST:PORT, such as 127.0.0.1:8080"
_TAKEN_PORT = (
    "spec.sidecar.forward: must not listen on spec.sidecar.statusPort, where the sidecar itself "
    "listens; give another port"
)
_SPAN = "must be a duration, such as 5s, 500ms or 2m"

BY_SIDECAR: dict[str, Case] = {
    **{
        f"a ttl of {said}": ({"ttl": said}, "spec.sidecar.ttl: must be more than 0, such as 5s")
        for said in ("0", "0s", "0ms", "0.0m")
    },
    "a ttl of hours": ({"ttl": "1h"}, _SPAN),
    "a drain of hours": ({"drain": "1h"}, _SPAN),
    "a linger below nothing": ({"linger": "-1s"}, _SPAN),
    "a pause of no length": ({"health": {"interval": "soon"}}, _SPAN),
    **{
        f"a pause of {said}": (
            {"health": {"interval": said}},
            "spec.sidecar.health.interval: must be 100ms or more",
        )
        for said in ("0", "99ms", "99.9ms", "0.09", "0.09s", "0.001m")
    },
    **{
        f"the URL {said!r}": ({"health": {"http": said}}, _URL)
        for said in (
            "",
            "localhost:8080",
            "ftp://localhost/",
            "http://",
            "http:///healthz",
            "http://a b/",
            "http://a:0/",
            "http://a:65536/",
            "http://me@a/",
            "http://a/\u00e9",
            "http://a/\n",
        )
    },
    **{
        f"the target {said!r}": ({"health": {"tcp": said}}, _TARGET)
        for said in ("", "8080", ":8080", "localhost", "a:0", "a:65536", "http://a:80", "a:80/b")
    },
    "the status port is forwarded": (
        {"forward": [{"port": 4040, "to": 80}]},
        _TAKEN_PORT,
    ),
    "another status port is forwarded": (
        {"statusPort": 8080, "forward": [{"port": 8081, "to": 80}, {"port": 8080, "to": 90}]},
        _TAKEN_PORT,
    ),
}
"""As `BY_SPEC`, of `spec.sidecar` alone; the operator refuses it where it injects."""

TAKEN: dict[str, dict[str, Any]] = {
    "the shortest": {
        "sidecar": {"ttl": "0.5", "drain": "0", "linger": "0ms", "health": {"interval": "100ms"}},
        "maxTermDuration": "1m",
        "maintenanceWindows": [{"start": "02:30", "duration": "1m"}],
    },
    "the shortest otherwise": {
        "sidecar": {"ttl": "1ms", "health": {"interval": "0.1"}},
        "maxTermDuration": "60s",
        "maintenanceWindows": [{"start": "02:30", "duration": "0.5h"}],
    },
    **{
        said: {"sidecar": {"health": {"http": said}}}
        for said in (
            "http://localhost",
            "https://127.0.0.1:65535/healthz?full=1",
            "http://[::1]:8080/",
            "http://$(POD_IP):8080/healthz",
            "http://[$(POD_IP)]:8080/healthz",
            "http://$(POD_NAME).web?a",
        )
    },
    **{
        said: {"sidecar": {"health": {"tcp": said}}}
        for said in ("localhost:1", "[::1]:5432", "$(POD_IP):80", "[$(POD_IP)]:80")
    },
    "the status port elsewhere": {
        "sidecar": {"statusPort": 4141, "forward": [{"port": 4040, "to": 4141}]}
    },
    "a node's role": {"preferred": {"nodeSelector": {"matchLabels": {_ROLE: "a"}}}},
}
"""Specs that are taken, each next to something that is not."""
