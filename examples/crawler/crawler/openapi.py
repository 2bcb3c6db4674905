"""The HTTP paths of the operations, and their description after OpenAPI 3.1."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from crawler.calls import OPERATIONS, Operation

_TYPES: dict[int, dict[str, str]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
}
_PROBLEMS = {
    "400": "A field is wrong; `field` names it.",
    "404": "There is no such resource.",
    "409": "The resource exists with other content.",
    "503": "There is no leader, or it cannot be reached; see Retry-After.",
    "504": "The deadline (header Request-Timeout) has passed.",
}


@dataclass(frozen=True, slots=True)
class Path:
    """Where an operation is in HTTP."""

    method: str
    path: str
    operation: Operation
    has_body: bool = False
    summary: str = ""


PATHS = (
    Path(
        "POST",
        "/resources",
        OPERATIONS["AddResource"],
        has_body=True,
        summary="Add a resource; returns the Worker that crawls it. May be repeated.",
    ),
    Path("GET", "/resources", OPERATIONS["ListResources"], summary="List resources by name."),
    Path("GET", "/resources/{name}", OPERATIONS["GetResource"], summary="Return a resource."),
    Path(
        "DELETE",
        "/resources/{name}",
        OPERATIONS["DeleteResource"],
        summary="Delete a resource with its results.",
    ),
    Path("GET", "/nodes", OPERATIONS["ListNodes"], summary="List the living Workers."),
)


def document() -> dict[str, Any]:
    """Return the description."""
    paths: dict[str, dict[str, Any]] = {}
    for path in PATHS:
        paths.setdefault(path.path, {})[path.method.lower()] = _described(path)
    messages = {message.full_name: message for path in PATHS for message in _messages(path)}
    schemas = {message.name: _schema(message) for message in messages.values()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Crawler Master", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas | {"Problem": _PROBLEM}},
    }


def page() -> str:
    """Return the operations as a page for people."""
    rows = "".join(
        f"<tr><td><code>{path.method} {html.escape(path.path)}</code></td>"
        f"<td>{html.escape(path.summary)}</td></tr>"
        for path in PATHS
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Crawler Master</title>"
        "<style>body{font:16px/1.5 system-ui;margin:2rem}td{padding:.2rem 1rem .2rem 0}</style>"
        f"<h1>Crawler Master</h1><table>{rows}</table>"
        '<p>In full: <a href="openapi.json">openapi.json</a>. The same operations answer over '
        "gRPC, with reflection.</p></html>\n"
    )


_PROBLEM = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "The name of gRPC's status code."},
        "message": {"type": "string"},
        "field": {"type": "string", "description": "The field to blame, if any."},
        "changed_nothing": {"type": "boolean"},
    },
}


def _described(path: Path) -> dict[str, Any]:
    operation = path.operation
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": path.summary,
        "parameters": _parameters(path),
        "responses": {
            "200": {"description": "Done.", **_content(operation.reply.DESCRIPTOR.name)},
            **{
                status: {"description": text, **_content("Problem")}
                for status, text in _PROBLEMS.items()
            },
        },
    }
    if path.has_body:
        described["requestBody"] = {"required": True, **_content(operation.request.DESCRIPTOR.name)}
    return described


def _parameters(path: Path) -> list[dict[str, Any]]:
    timeout = {"name": "Request-Timeout", "in": "header", "schema": {"type": "string"}}
    if path.has_body:
        return [timeout]
    fields = [
        {
            "name": field.name,
            "in": "path" if f"{{{field.name}}}" in path.path else "query",
            "required": f"{{{field.name}}}" in path.path,
            "schema": _field(field),
        }
        for field in path.operation.request.DESCRIPTOR.fields
    ]
    return [*fields, timeout]


def _messages(path: Path) -> list[Any]:
    found: list[Any] = [path.operation.reply.DESCRIPTOR]
    if path.has_body:
        found.append(path.operation.request.DESCRIPTOR)
    for message in found:  # grows while it is walked
        found += [field.message_type for field in message.fields if field.message_type]
    return found


def _schema(message: Any) -> dict[str, Any]:
    properties = {field.name: _field(field) for field in message.fields}
    return {"type": "object", "properties": properties}


def _field(field: Any) -> dict[str, Any]:
    one: dict[str, Any]
    if field.message_type is not None:
        one = {"$ref": f"#/components/schemas/{field.message_type.name}"}
    else:
        one = dict(_TYPES[field.type])
    return {"type": "array", "items": one} if field.is_repeated else one


def _content(schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"content": {"application/json": {"schema": reference}}}
