"""What others let us say: the fields of cert-manager's and the Prometheus operator's kinds we use.

Their own schemas come with their code, which no package that we install holds; these were compared
with those of cert-manager 1.21 and of the Prometheus operator 0.85. A field that is not here is an
error, as it is in the schemas of Kubernetes beside this.
"""

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_WORD = {"type": "string", "minLength": 1}
_DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|h|m|s))+$"}
_LABELS = {"type": "object", "additionalProperties": _TEXT}


def _many(of: Any) -> Any:
    return {"type": "array", "minItems": 1, "items": of}


def _one_of(*words: str) -> Any:
    return {"enum": list(words)}


def _thing(needed: Mapping[str, Any], **more: Any) -> Any:
    """An object with these fields and no others; `more` may be missing."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(needed),
        "properties": {**needed, **more},
    }


_ENDPOINT = _thing({"port": _WORD, "path": _WORD, "interval": _DURATION})
_REQUIREMENT = _thing(
    {"key": _WORD, "operator": _one_of("In", "NotIn", "Exists", "DoesNotExist")},
    values=_many(_WORD),
)
_SELECTOR = _thing({"matchExpressions": _many(_REQUIREMENT)})
_ALERT = _thing(
    {"alert": _WORD, "expr": _WORD, "labels": _LABELS, "annotations": _LABELS},
    **{"for": _DURATION},
)
_KEY = _thing(
    {"algorithm": _one_of("RSA", "ECDSA", "Ed25519"), "size": {"type": "integer"}},
    rotationPolicy=_one_of("Never", "Always"),
)
_USAGES = _one_of("digital signature", "key encipherment", "server auth", "client auth")

SPECS: Mapping[tuple[str, str], Any] = {
    ("cert-manager.io/v1", "Issuer"): _thing(
        {}, selfSigned=_thing({}), ca=_thing({"secretName": _WORD})
    ),
    ("cert-manager.io/v1", "Certificate"): _thing(
        {"secretName": _WORD, "issuerRef": _thing({"name": _WORD}, kind=_WORD, group=_WORD)},
        commonName={"type": "string", "minLength": 1, "maxLength": 64},
        dnsNames=_many(_WORD),
        duration=_DURATION,
        ipAddresses=_many(_WORD),
        isCA={"type": "boolean"},
        privateKey=_KEY,
        renewBefore=_DURATION,
        usages=_many(_USAGES),
    ),
    ("monitoring.coreos.com/v1", "PodMonitor"): _thing(
        {"selector": _SELECTOR, "podMetricsEndpoints": _many(_ENDPOINT)}
    ),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): _thing(
        {"selector": _SELECTOR, "endpoints": _many(_ENDPOINT)}
    ),
    ("monitoring.coreos.com/v1", "PrometheusRule"): _thing(
        {"groups": _many(_thing({"name": _WORD, "rules": _many(_ALERT)}))}
    ),
}
"""The spec of each kind, by its API and its name, as a JSON schema."""
