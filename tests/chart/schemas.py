"""Kubernetes' own JSON schemas, strict: a field that an API does not know is an error.

What others define is held to `tests.chart.foreign`, and an Election to our own chart of its kind.
"""

import functools
import importlib.resources
import json
import re
from typing import Any

import jsonschema
import yaml
from referencing import Registry, Resource

from tests.chart.foreign import SPECS
from tests.support.helm import CHART

_HOME = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema"
_KIND = CHART.parent / "leader-sidecar-crds" / "templates" / "elections.yaml"
_ELECTION = ("leader-sidecar.io/v1alpha1", "Election")


def problems(thing: dict[str, Any], version: str) -> list[str]:
    """Return what a Kubernetes of this version (1.29) would refuse or drop in an object."""
    kind = (thing["apiVersion"], thing["kind"])
    if kind == _ELECTION or kind in SPECS:
        validator, found = _of_spec(kind), thing["spec"]
    else:
        validator, found = _validator(thing["kind"], thing["apiVersion"], version), thing
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(found)]


@functools.cache
def _of_spec(kind: tuple[str, str]) -> Any:
    return jsonschema.Draft202012Validator(
        _strict(_election()) if kind == _ELECTION else SPECS[kind]
    )


def _election() -> Any:
    # The braces of Helm are in its labels alone.
    text = re.sub(r"\{\{.*?\}\}", "", _KIND.read_text())
    (version,) = yaml.safe_load(text)["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]["properties"]["spec"]


def _strict(schema: Any) -> Any:
    """Return a kind's schema with no other fields than it names, as Kubernetes would drop them."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    return made


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
