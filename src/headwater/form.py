"""Values → the pairs of a query or a form: nested mappings become `created[gte]`, the way that providers read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import TypeAlias, Union
from urllib.parse import urlencode

FormValue: TypeAlias = Union[  # noqa: UP007  a string in `X | Y` would not resolve at run time
    str, int, float, Decimal, bool, Sequence["FormValue"], Mapping[str, "FormValue"], None
]
Form: TypeAlias = Mapping[str, FormValue] | Sequence[tuple[str, FormValue]]

DEPTH_MAX = 10
NUMBER_DIGITS_MAX = 1_000  # written out, before or behind the point: of `1E+9` that is ten
_INTEGER_END = 10**NUMBER_DIGITS_MAX


def encode(form: Form) -> str:
    """`form` as `application/x-www-form-urlencoded`.

    A nested mapping gives `name[key]=value`; a list of plain values repeats its name; a list of mappings gives
    `name[0][key]=value`. Booleans are `true` and `false`; None leaves the pair out. `TypeError` for what has no form, a
    number of more than `NUMBER_DIGITS_MAX` digits among it.
    """
    items = form.items() if isinstance(form, Mapping) else form
    return urlencode([pair for name, value in items for pair in _pairs(str(name), value, 0)])


def _pairs(name: str, value: object, depth: int) -> Iterator[tuple[str, str]]:
    if depth > DEPTH_MAX:
        raise TypeError(f"`{name[:80]}` is nested deeper than {DEPTH_MAX}")
    if isinstance(value, str):
        yield name, value
    elif value is None:
        return
    elif isinstance(value, bool):
        yield name, "true" if value else "false"
    elif isinstance(value, (int, float, Decimal)):
        yield name, _number(name, value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _pairs(f"{name}[{key}]", inner, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        for index, inner in enumerate(value):
            nested = isinstance(inner, Mapping)
            yield from _pairs(f"{name}[{index}]" if nested else name, inner, depth + 1)
    else:
        raise TypeError(
            f"`{name}` is a {type(value).__name__}, which has no place in a query or form; "
            "give text or a number (of an instant: `int(instant.timestamp())` or `instant.isoformat()`)"
        )


def _number(name: str, value: float | Decimal) -> str:
    # Few characters may stand for a number that fills the memory once it is written out.
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent  # text for one that is not finite
        is_long = isinstance(exponent, int) and max(value.adjusted() + 1, -exponent) > NUMBER_DIGITS_MAX
    else:
        is_long = isinstance(value, int) and abs(value) >= _INTEGER_END
    if is_long:
        raise TypeError(
            f"`{name[:80]}` is a number of more than {NUMBER_DIGITS_MAX} digits; give text if it is meant as it is"
        )
    return format(value, "f") if isinstance(value, Decimal) else str(value)
