"""Kubernetes' own JSON schemas, strict: a field that an API does not know is an error."""

import functools
import importlib.resources
import json
import re
from typing import Any

import jsonschema
from referencing import Registry, Resource

_HOME = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"

# What others define; promtool checks the rules of a PrometheusRule, and we read an Election.
FOREIGN = {"cert-manager.io/v1", "monitoring.coreos.com/v1", "leader-sidecar.io/v1alpha1"}


def problems(thing: dict[str, Any], version: str) -> list[str]:
    """Return what a Kubernetes of this version (1.29) would refuse or drop in an object."""
    if thing["apiVersion"] in FOREIGN:
        return []
    validator = _validator(thing["kind"], thing["apiVersion"], version)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(thing)]


@functools.cache
def _validator(kind: str, api_version: str, version: str) -> Any:
    folder = _HOME / f"v{version}.0-local-strict"
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((folder / f"{kind.lower()}-{name}.json").read_text())
    registry: Registry[Any] = Resource.from_contents(schema) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version) @ registry)


@functools.cache
def _definitions(version: str) -> Any:
    folder = _HOME / f"v{version}.0-local-strict"
    return Resource.from_contents(json.loads((folder / "_definitions.json").read_text()))
