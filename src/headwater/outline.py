"""What a connector promises to its operator and to the readers of its records, as plain values that can be compared.

An outline is stored with its bundle, so that two versions are compared without the code of either.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import msgspec

from headwater.catalog import Connector, Stream
from headwater.project import Project, shipped_types

DEPTH_MAX = 8  # of fields within fields

_UNSHOWN = frozenset({"key", "description"})


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A version of a connector, without its code."""

    connector: str  # its key
    version: str  # of the manifest
    streams: Mapping[str, Mapping[str, Any]]  # by key: what each declares
    permissions: tuple[str, ...] = ()
    private: bool = False  # may call private addresses
    settings: Mapping[str, Any] = field(default_factory=dict)  # by name: the schema of each field
    required: tuple[str, ...] = ()  # settings that must be there
    webhooks: Mapping[str, Any] | None = None
    # Its own canonical types: by name, the type of each field in words. None where that is not known.
    types: Mapping[str, Mapping[str, str]] | None = field(default_factory=dict)


def outline(project: Project) -> Outline:
    """The outline of a loaded project."""
    connector = project.connector
    schema = connector.connection.settings
    shipped = shipped_types()
    made = Outline(
        connector=connector.key,
        version=connector.version,
        streams={stream.key: _declared(stream) for stream in connector.streams},
        permissions=tuple(connector.permissions.http),
        private=connector.permissions.private,
        settings=schema.get("properties", {}),
        required=tuple(schema.get("required", ())),
        webhooks=_webhooks(connector),
        types={name: shape(one.json_schema()) for name, one in project.types.items() if name not in shipped},
    )
    # What a manifest holds need not be plain: tuples become lists, as they are when they come from the store.
    return decode(encode(made))


def encode(made: Outline) -> str:
    """The text that is stored."""
    return msgspec.json.encode(made, order="deterministic").decode()


def decode(text: str) -> Outline:
    """The outline of a stored text."""
    return msgspec.json.decode(text, type=Outline)


def shape(schema: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a JSON Schema of an object by their dotted paths, with the type of each in words."""
    definitions = schema.get("$defs", {})
    return dict(_fields(_resolved(schema, definitions), definitions, "", 0))


def _declared(stream: Stream) -> dict[str, Any]:
    return {one.name: getattr(stream, one.name) for one in fields(stream) if one.name not in _UNSHOWN}


def _webhooks(connector: Connector) -> dict[str, Any] | None:
    webhooks = connector.webhooks
    return None if webhooks is None else {one.name: getattr(webhooks, one.name) for one in fields(webhooks)}


def _fields(schema: Any, definitions: Any, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, raw in properties.items() if isinstance(properties, Mapping) else ():
        path = f"{prefix}{name}"
        yield path, _words(raw, definitions)
        for part in _objects(raw, definitions) if depth < DEPTH_MAX else ():
            yield from _fields(part, definitions, f"{path}.", depth + 1)


def _resolved(schema: Any, definitions: Any) -> Any:
    for _ in range(DEPTH_MAX):
        name = schema.get("$ref") if isinstance(schema, Mapping) else None
        if not isinstance(name, str):
            return schema
        schema = definitions.get(name.rpartition("/")[2], {})
    return {}


def _objects(raw: Any, definitions: Any, depth: int = 0) -> Iterator[Any]:
    """The objects that a field may hold: itself, in a list, or as one of several."""
    schema = _resolved(raw, definitions)
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return
    if "properties" in schema:
        yield schema
    inner = [schema.get("items"), schema.get("additionalProperties"), *_choices(schema)]
    for one in inner:
        yield from _objects(one, definitions, depth + 1)


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    choices = schema.get("anyOf") or schema.get("oneOf")
    return list(choices) if isinstance(choices, list) else []


def _words(raw: Any, definitions: Any, depth: int = 0) -> str:
    schema = _resolved(raw, definitions)
    if not isinstance(schema, Mapping) or depth > DEPTH_MAX:
        return "anything"
    if choices := _choices(schema):
        return " | ".join(sorted({_words(one, definitions, depth + 1) for one in choices}))
    if "enum" in schema:
        return "one of " + ", ".join(sorted(map(str, schema["enum"])))
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " | ".join(sorted(map(str, kind)))
    if kind == "array":
        return f"array of {_words(schema.get('items'), definitions, depth + 1)}"
    return f"{kind} ({schema['format']})" if "format" in schema else str(kind)
