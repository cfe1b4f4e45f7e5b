"""What a canonical type is: a name, a shape, and the one function that turns a payload into its canonical bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, dataclass_transform, get_args, get_origin, get_type_hints

import msgspec

from headwater.errors import InvalidPayloadError
from headwater.jsonvalue import canonical_bytes, decimal

ColumnKind = Literal["text", "integer", "decimal", "boolean", "json"]
Instant = Annotated[datetime, msgspec.Meta(tz=True)]  # aware; a naive one is refused


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Canonical(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of a typed canonical type: a subclass names itself by `type_name`, or by its class name in snake case.

    Fields that are None are left out of the canonical form. Amounts are `int` minor units or `Decimal`, never float.
    """

    type_name: ClassVar[str] = ""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Part(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of a value inside a canonical type that has no identity of its own, such as an address."""


@dataclass(frozen=True, kw_only=True)
class CanonicalType:
    """A canonical type, whatever its shape was declared with."""

    name: str
    settle: Callable[[Any], tuple[bytes, Any]]  # payload → canonical bytes and its `id`; raises InvalidPayloadError
    columns: tuple[tuple[str, ColumnKind], ...]  # top-level fields, for the SQL view
    json_schema: Callable[[], Mapping[str, Any]] = field(repr=False)

    def encode(self, payload: Any) -> bytes:
        """The canonical bytes of a payload; `InvalidPayloadError` for one that does not fit."""
        return self.settle(payload)[0]


def type_name(struct: type[Canonical]) -> str:
    """The canonical name of a struct: its own word, or `CreditNote` → `credit_note`."""
    if struct.type_name:
        return struct.type_name
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in struct.__name__).lstrip("_")


def from_struct(struct: type[Canonical]) -> CanonicalType:
    """The canonical type of a typed struct; `TypeError` for one that declares a float."""
    name = type_name(struct)
    decode = msgspec.json.Decoder(struct, float_hook=decimal).decode
    convert = msgspec.convert
    # A strict int or str field refuses a float by itself: only a field that takes decimals, or anything, must be
    # searched for one. Most types have neither, and this is the hot path.
    searched = _takes_decimals(struct)

    identify = attrgetter("id") if "id" in struct.__struct_fields__ else _no_id

    def settle(payload: Any) -> tuple[bytes, Any]:
        try:
            if isinstance(payload, (bytes, msgspec.Raw)):
                value = decode(payload)
            else:
                if searched:
                    _refuse_floats(payload)
                # A constructor does not check its arguments: the round trip does, and settles the form.
                is_typed = isinstance(payload, struct)
                value = decode(canonical_bytes(payload)) if is_typed else convert(payload, struct)
            encoded = canonical_bytes(value)
            if searched and any(mark in encoded for mark in _NOT_FINITE):
                _refuse_floats(decode(encoded))
        except _MISFITS as error:
            raise InvalidPayloadError(f"The payload is no `{name}`: {error}.") from error
        return encoded, identify(value)

    return CanonicalType(
        name=name,
        settle=settle,
        columns=tuple(_columns(struct)),
        json_schema=lambda: msgspec.json.schema(struct),
    )


def from_json_schema(name: str, schema: Mapping[str, Any]) -> CanonicalType:
    """The canonical type of a JSON Schema 2020-12 of an object."""
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(dict(schema), validate_formats=True)
    decoder = msgspec.json.Decoder(float_hook=decimal)

    def settle(payload: Any) -> tuple[bytes, Any]:
        try:
            if not isinstance(payload, (bytes, msgspec.Raw)):
                _refuse_floats(payload)
                payload = canonical_bytes(payload)
            value = decoder.decode(payload)
            problems = list(validator.iter_errors(value))
            if problems:
                _restore_decimals(value, [problem.instance_path for problem in problems])
                problems = list(validator.iter_errors(value))
        except _MISFITS as error:
            raise InvalidPayloadError(f"The payload is no `{name}`: {error}.") from error
        if problems:
            path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problems[0].instance_path)
            raise InvalidPayloadError(f"The payload is no `{name}`: {problems[0].message} - at `${path}`.")
        return canonical_bytes(value), value.get("id") if isinstance(value, dict) else None

    return CanonicalType(name=name, settle=settle, columns=tuple(_schema_columns(schema)), json_schema=lambda: schema)


def _no_id(_value: Any) -> None:
    return None


_MISFITS = (msgspec.ValidationError, msgspec.DecodeError, TypeError, ValueError, RecursionError, OverflowError)
_NOT_FINITE = (b'NaN"', b'Infinity"')  # how a Decimal that is no number ends in the canonical form
_DEPTH_MAX = 100
_PLAIN = frozenset({str, int, bool, type(None)})


def _refuse_floats(payload: Any, path: str = "$", depth: int = 0) -> None:
    """Money is never a float: a binary fraction has already lost digits when it gets here. Nor is it NaN."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"nested deeper than {_DEPTH_MAX}")
    if isinstance(payload, float):
        raise ValueError(f"a float has lost digits, use Decimal or int - at `{path}`")
    if isinstance(payload, Decimal) and not payload.is_finite():
        raise ValueError(f"{payload} is no amount - at `{path}`")
    for step, value in _inside(payload):
        if type(value) not in _PLAIN:
            _refuse_floats(value, path + step, depth + 1)


def _inside(payload: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(payload, Mapping):
        return ((f".{key}", value) for key, value in payload.items())
    if isinstance(payload, (list, tuple, set, frozenset)):
        return ((f"[{index}]", value) for index, value in enumerate(payload))
    if isinstance(payload, msgspec.Struct):
        return ((f".{key}", getattr(payload, key)) for key in payload.__struct_fields__)
    return iter(())


def _takes_decimals(struct: type[msgspec.Struct]) -> bool:
    """Whether a value with a fraction can stand anywhere in it: a Decimal, or a field of any type."""
    found = False
    seen: set[int] = set()
    waiting: list[Any] = [msgspec.inspect.type_info(struct)]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, msgspec.inspect.FloatType):
            raise TypeError(f"{struct.__name__} declares a float: amounts are `int` minor units or `Decimal`")
        found |= isinstance(node, (msgspec.inspect.DecimalType, msgspec.inspect.AnyType, msgspec.inspect.CustomType))
        for name in getattr(node, "__struct_fields__", ()):
            part = getattr(node, name)
            parts = part if isinstance(part, tuple) else (part,)
            waiting.extend(one for one in parts if isinstance(one, (msgspec.inspect.Type, msgspec.inspect.Field)))
    return found


def _restore_decimals(value: Any, paths: list[list[str | int]]) -> None:
    """Turn text at `paths` back into the number that its canonical form stands for, where it is one."""
    for path in paths:
        holder = value
        for part in path[:-1]:
            holder = holder[part]
        if path and isinstance(text := holder[path[-1]], str) and _NUMBER.fullmatch(text):
            holder[path[-1]] = Decimal(text)


_NUMBER = re.compile(r"-?\d{1,1000}(\.\d{1,1000})?([eE][+-]?\d{1,4})?", re.ASCII)

_KINDS: dict[type, ColumnKind] = {
    str: "text", int: "integer", Decimal: "decimal", bool: "boolean", datetime: "text", date: "text",
}  # fmt: skip


def _columns(struct: type[Canonical]) -> list[tuple[str, ColumnKind]]:
    hints = get_type_hints(struct, include_extras=False)
    return [(name, _kind(hints[name])) for name in struct.__struct_fields__]


def _kind(hint: Any) -> ColumnKind:
    if get_origin(hint) in (Union, UnionType):
        kinds = {_kind(part) for part in get_args(hint) if part is not type(None)}
        return kinds.pop() if len(kinds) == 1 else "json"
    if get_origin(hint) is Literal:
        return "text"
    return _KINDS.get(hint, "json")


_SCHEMA_KINDS: dict[Any, ColumnKind] = {
    "string": "text", "integer": "integer", "number": "decimal", "boolean": "boolean",
}  # fmt: skip


def _schema_columns(schema: Mapping[str, Any]) -> list[tuple[str, ColumnKind]]:
    def kind(field_schema: Any) -> ColumnKind:
        declared = field_schema.get("type") if isinstance(field_schema, Mapping) else None
        if isinstance(declared, list):
            declared = next((one for one in declared if one != "null"), None)
        return _SCHEMA_KINDS.get(declared, "json")

    return [(name, kind(field_schema)) for name, field_schema in schema.get("properties", {}).items()]
