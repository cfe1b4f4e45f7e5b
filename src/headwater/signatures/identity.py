"""What names a delivery: ids and event types, from headers and from the first level of a JSON body.

A body is read only after its signature was proved, and cheaply: all but the wanted fields is skipped. One that is no
such JSON has no name, and its hash serves; it is never an error.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from headwater.signature import SignedRequest

NAME_CHARS_MAX = 255

T = TypeVar("T")


def read(decoder: msgspec.json.Decoder[T], body: bytes) -> T | None:
    """The wanted fields of a body, or None where it has not that shape."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def usable(name: str | None) -> str | None:
    """`name` where it can serve as an id or event type: not empty, not long, nothing but printable characters."""
    if name and len(name) <= NAME_CHARS_MAX and name.isprintable():
        return name
    return None


def from_header(request: SignedRequest, name: str) -> str | None:
    """The usable value of a header."""
    return usable(request.header(name))
