"""JSON loses no digit, and bad JSON is refused without a crash."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater import jsonvalue
from headwater.errors import InvalidPayloadError

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values)
def test_the_canonical_form_is_stable(value):
    once = jsonvalue.canonical_bytes(value)
    assert jsonvalue.canonical_bytes(jsonvalue.decode(once)) == once


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), scalars, min_size=2))
def test_the_order_of_keys_changes_nothing(value):
    shuffled = dict(reversed(list(value.items())))
    assert jsonvalue.canonical_bytes(shuffled) == jsonvalue.canonical_bytes(value)


def test_numbers_keep_every_digit():
    value = jsonvalue.decode(b'{"big": 123456789012345678901234567890, "exact": 0.10000000000000000000000001}')
    assert value == {"big": 123456789012345678901234567890, "exact": Decimal("0.10000000000000000000000001")}


@pytest.mark.parametrize(
    "text",
    [
        b"NaN",
        b"[1, Infinity]",
        b'"\\ud800"',
        b"9" * 5000,
        b"[8e88888888888888888888]",
        b"[-1.5E-99999999999999999999]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{",
        b"",
        b"\xff\xfe",
        b'{"a": 1} trailing',
    ],
    ids=[
        "nan",
        "infinity",
        "lone surrogate",
        "huge integer",
        "huge exponent",
        "tiny exponent",
        "deep list",
        "deep object",
        "cut",
        "empty",
        "bytes",
        "tail",
    ],
)
def test_what_is_not_usable_json_is_refused_with_words(text):
    with pytest.raises(InvalidPayloadError):
        jsonvalue.decode(text)


def test_a_nul_character_survives():
    assert jsonvalue.decode(jsonvalue.canonical_bytes("a\x00b")) == "a\x00b"
