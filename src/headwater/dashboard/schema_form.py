"""A settings schema → the fields of a form, and what was typed into it → values. A secret is never shown again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from headwater.catalog import Connector

_NUMBERS = ("integer", "number")


@dataclass(frozen=True, kw_only=True)
class Field:
    """One setting as a form shows it."""

    name: str
    label: str
    help: str
    kind: str  # text, password, number, checkbox, select, lines, json
    value: str  # as it stands in the form; "" of a secret
    is_required: bool
    is_set: bool = False  # a secret that is stored
    choices: Sequence[str] = ()
    error: str = ""


def fields(
    connector: Connector,
    values: Mapping[str, Any],
    *,
    errors: Mapping[str, str] = {},
    stored_secrets: Collection[str] = (),
    typed: Mapping[str, str] | None = None,
) -> list[Field]:
    """The fields of a connector's settings in their order; `typed` is what a form held, and comes before `values`."""
    schema = connector.connection.settings
    required = set(schema.get("required", ()))
    given = connector.with_defaults(values)
    found = []
    for name, of in _properties(connector):
        is_secret = name in connector.secret_fields
        kind = "password" if is_secret else _kind(of)
        shown = "" if is_secret else _shown(given.get(name), kind) if typed is None else typed.get(name, "")
        found.append(
            Field(
                name=name,
                label=str(of.get("title") or name.replace("_", " ").capitalize()),
                help=str(of.get("description", "")),
                kind=kind,
                value=shown,
                is_required=name in required and name not in stored_secrets and kind != "checkbox",
                is_set=name in stored_secrets,
                choices=[_text(one) for one in of.get("enum", ())],
                error=errors.get(name, ""),
            )
        )
    return found


def read(connector: Connector, typed: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain settings and the secrets of a form; what is empty is left out, what is of no type stays a text, for
    the schema to say so.
    """
    plain: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    for name, of in _properties(connector):
        text = typed.get(name, "")
        if name in connector.secret_fields:
            if text:
                secrets[name] = text
        elif _kind(of) == "checkbox":
            plain[name] = text == "true"
        elif text.strip():
            plain[name] = _value(text, of)
    return plain, secrets


def _properties(connector: Connector) -> list[tuple[str, Mapping[str, Any]]]:
    properties = connector.connection.settings.get("properties", {})
    return [(name, of if isinstance(of, Mapping) else {}) for name, of in properties.items()]


def _kind(of: Mapping[str, Any]) -> str:
    if "enum" in of:
        return "select"
    kind = of.get("type", "string")
    if kind == "boolean":
        return "checkbox"
    if kind in _NUMBERS:
        return "number"
    if kind == "array":
        items = of.get("items", {})
        return "lines" if isinstance(items, Mapping) and items.get("type") == "string" else "json"
    return "json" if kind == "object" or not isinstance(kind, str) else "text"


def _value(text: str, of: Mapping[str, Any]) -> Any:
    kind = _kind(of)
    if kind == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    if kind == "select":
        return next((one for one in of["enum"] if _text(one) == text), text)
    if kind in ("number", "json"):
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError:
            return text
    return text.strip()


def _shown(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "checkbox":
        return "true" if value is True else ""
    if kind == "lines" and isinstance(value, list):
        return "\n".join(map(str, value))
    return _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
