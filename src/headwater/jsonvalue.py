"""JSON that loses no digit: reading and writing with `int` and `Decimal`, the canonical form, and its hash.

Canonical form: UTF-8, keys sorted, no spaces, decimals as strings, so that equal content has equal bytes on any store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import TypeAlias, Union

import msgspec

from headwater.errors import InvalidPayloadError

JSONValue: TypeAlias = Union[  # noqa: UP007  a string in `X | Y` would not resolve at run time
    bool, int, Decimal, str, Sequence["JSONValue"], Mapping[str, "JSONValue"], None
]

HASH_BYTES = 16


def decimal(text: str) -> Decimal:
    """A JSON number with a fraction or an exponent; `msgspec.DecodeError` where its exponent is beyond all bounds."""
    try:
        return Decimal(text)
    except InvalidOperation:
        raise msgspec.DecodeError("a number is beyond all bounds") from None


_decoder = msgspec.json.Decoder(float_hook=decimal)
_encoder = msgspec.json.Encoder(order="sorted", decimal_format="string")
canonical_bytes = _encoder.encode


def decode(data: bytes | str) -> JSONValue:
    """The value of a JSON text, with every digit: numbers are `int` or `Decimal`, never `float`.

    Raises `InvalidPayloadError` for anything that is not JSON of a sane depth: NaN, lone surrogates, nesting
    beyond the interpreter's limit, integers of thousands of digits, exponents that no `Decimal` holds.
    """
    try:
        value: JSONValue = _decoder.decode(data)
    except RecursionError as error:
        raise InvalidPayloadError("The JSON is nested too deeply.") from error
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise InvalidPayloadError(f"The text is not usable JSON: {error}.") from error
    return value


def content_hash(data: bytes) -> bytes:
    """The 16-byte hash by which content is compared."""
    return blake2b(data, digest_size=HASH_BYTES).digest()
