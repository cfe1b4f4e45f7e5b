"""What an endpoint takes and gives, as data: the OpenAPI document is made of it, and a test holds the code to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.api.access import Scope
from headwater.api.query import BODY_BYTES_MAX, INTEGER_MAX
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX

Schema = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a query."""

    name: str
    schema: Schema
    description: str = ""
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The JSON of an answer: the fields of a type, some left out, others beside them."""

    kind: Any = None  # None: only what stands beside
    without: Sequence[str] = ()
    beside: Mapping[str, Any] = field(default_factory=dict)  # a type, or another shape, by field
    is_list: bool = False  # a list of them

    def listed(self, **beside: Any) -> Shape:
        """The answer of a list of them, which may go on."""
        return Shape(beside={"data": Shape(**{**vars(self), "is_list": True}), "next_cursor": str | None, **beside})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str  # as the router has it
    name: str  # of its handler
    description: str
    scope: Scope
    query: Sequence[Parameter] = ()
    body: Any = None  # a type, or None
    media_type: str = "application/json"  # of the body
    body_bytes_max: int = BODY_BYTES_MAX
    is_repeatable: bool = True  # False: its answer holds a secret, and is not kept for an idempotency key
    answer: Shape | None = None  # None: no content
    status: int = 200
    statuses: Sequence[int] = ()  # of other successes, with the same shape


def text(name: str, description: str = "") -> Parameter:
    """Any text."""
    return Parameter(name=name, schema={"type": "string"}, description=description)


def choice(name: str, words: Sequence[str]) -> Parameter:
    """One of some words."""
    return Parameter(name=name, schema={"type": "string", "enum": list(words)})


def number(name: str, description: str = "", *, low: int = 0, high: int = INTEGER_MAX) -> Parameter:
    """A whole number."""
    return Parameter(name=name, schema={"type": "integer", "minimum": low, "maximum": high}, description=description)


def flag(name: str, description: str = "") -> Parameter:
    """True or false."""
    return Parameter(name=name, schema={"type": "boolean"}, description=description)


def instant(name: str, description: str) -> Parameter:
    """An instant with its zone, or a day."""
    pattern = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:\d{2}))?$"
    schema = {"type": "string", "pattern": pattern, "examples": ["2026-01-31T12:00:00Z", "2026-01-31"]}
    return Parameter(name=name, schema=schema, description=description)


CONNECTION = text("connection", "Connection key.")
TENANT = text("tenant", "Of the connections of this tenant.")
STREAM = text("stream", "Stream key.")
TYPE = text("type", "Canonical type.")
PARTITION = text("partition", "Of a stream with partitions.")
AFTER = text("after", "The `next_cursor` of the page before.")
AFTER_ID = number("after", "The `next_cursor` of the page before.")
LIMIT = Parameter(
    name="limit",
    schema={"type": "integer", "minimum": 1, "maximum": LIST_LIMIT_MAX, "default": LIST_LIMIT},
    description="Entries of a page.",
)
