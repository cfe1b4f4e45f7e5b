"""The OpenAPI 3.1 document of `/api/v1`, made of the operations and the types that they carry."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import msgspec

from headwater.api.access import Scope
from headwater.api.operation import Operation, Parameter, Schema, Shape
from headwater.api.query import INTEGER_MAX

REF = "#/components/schemas/{name}"
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A text of your own for this request: sent again with the same one within a day, it is not carried "
    "out again, and answered as before.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": r"^[\x21-\x7e]+$"},
}
_PROBLEM: Schema = {
    "type": "object",
    "description": "RFC 9457 problem details.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["type", "title", "status", "detail", "code"],
}
_PARAMETER = re.compile(r"\{(\w+)(?::(\w+))?\}")


def document(operations: Iterable[Operation], *, version: str, prefix: str) -> dict[str, Any]:
    """The document, by path."""
    known = list(operations)
    types = _Types(known)
    paths: dict[str, dict[str, Any]] = {}
    for one in known:
        path = _PARAMETER.sub(r"{\1}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, types)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headwater",
            "version": version,
            "description": "Streams, runs, deliveries, records, and everything that an operator does with them.",
        },
        "servers": [{"url": prefix}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**types.components, "Problem": _PROBLEM},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": f"`hw_…`, with scopes among {', '.join(get_args(Scope))}.",
                }
            },
        },
    }


class _Types:
    """Every type that is named, as a component."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        kinds: dict[Any, None] = {}
        for one in operations:
            if one.body is not None:
                kinds[one.body] = None
            for kind in _kinds_of(one.answer):
                kinds[kind] = None
        schemas, self.components = msgspec.json.schema_components(list(kinds), ref_template=REF)
        self._schemas = dict(zip(kinds, schemas, strict=True))

    def of(self, kind: Any) -> Schema:
        """The schema of a type, mostly a reference."""
        found: Schema = self._schemas[kind]
        return found

    def shape(self, shape: Shape) -> Schema:
        """The schema of an answer."""
        if shape.kind is not None and not shape.without and not shape.beside:
            schema = self.of(shape.kind)
        else:
            schema = self._object(shape)
        return {"type": "array", "items": schema} if shape.is_list else schema

    def _object(self, shape: Shape) -> Schema:
        properties: dict[str, Any] = {}
        if shape.kind is not None:
            reference = self.of(shape.kind)["$ref"]
            own = self.components[reference.rpartition("/")[2]]["properties"]
            properties = {name: schema for name, schema in own.items() if name not in shape.without}
        for name, inner in shape.beside.items():
            properties[name] = self.shape(inner) if isinstance(inner, Shape) else self.of(inner)
        # An answer always tells all of its fields.
        return {"type": "object", "properties": properties, "required": list(properties)}


def _kinds_of(shape: Shape | None) -> list[Any]:
    if shape is None:
        return []
    found = [] if shape.kind is None else [shape.kind]
    for inner in shape.beside.values():
        found += _kinds_of(inner) if isinstance(inner, Shape) else [inner]
    return found


def _operation(one: Operation, types: _Types) -> dict[str, Any]:
    summary, _, rest = one.description.partition("\n")
    made: dict[str, Any] = {
        "operationId": one.name,
        "summary": summary.rstrip("."),
        "description": f"{rest.strip()}\n\nTakes the scope `{one.scope}`.".strip(),
        "parameters": [*_path_parameters(one.path), *[_query_parameter(each) for each in one.query]],
        "responses": _responses(one, types),
    }
    if one.method == "POST" and one.is_repeatable:
        made["parameters"].append(IDEMPOTENCY_KEY)
    if one.body is not None:
        schema = {"type": "string", "format": "binary"} if one.body is bytes else types.of(one.body)
        made["requestBody"] = {"required": False, "content": {one.media_type: {"schema": schema}}}
    return made


def _responses(one: Operation, types: _Types) -> dict[str, Any]:
    problem = {"schema": {"$ref": REF.format(name="Problem")}}
    responses: dict[str, Any] = {
        "default": {"description": "What is wrong, and what to do.", "content": {"application/problem+json": problem}}
    }
    for status in (one.status, *one.statuses):
        response: dict[str, Any] = {"description": "Done."}
        if one.answer is not None:
            response["content"] = {"application/json": {"schema": types.shape(one.answer)}}
        responses[str(status)] = response
    return responses


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for name, kind in _PARAMETER.findall(path):
        schema = (
            {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX}
            if kind == "int"
            else {"type": "string", "minLength": 1}
        )
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    return found


def _query_parameter(one: Parameter) -> dict[str, Any]:
    made: dict[str, Any] = {"name": one.name, "in": "query", "required": one.required, "schema": dict(one.schema)}
    return made | ({"description": one.description} if one.description else {})
