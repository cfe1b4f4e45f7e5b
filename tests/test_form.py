"""Values in a query or a form."""

from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.form import DEPTH_MAX, NUMBER_DIGITS_MAX, encode


@pytest.mark.parametrize(
    ("form", "pairs"),
    [
        ({"limit": 100, "after": None}, [("limit", "100")]),
        ({"created": {"gte": 1, "lt": 2}}, [("created[gte]", "1"), ("created[lt]", "2")]),
        ({"expand[]": ["data.a", "data.b"]}, [("expand[]", "data.a"), ("expand[]", "data.b")]),
        ({"items": [{"price": "p"}, {"price": "q"}]}, [("items[0][price]", "p"), ("items[1][price]", "q")]),
        ({"live": True, "test": False}, [("live", "true"), ("test", "false")]),
        ({"amount": Decimal("10.50"), "big": Decimal("1E+3")}, [("amount", "10.50"), ("big", "1000")]),
        ([("a", 1), ("a", 2)], [("a", "1"), ("a", "2")]),
        ({"q": "a b&c=é"}, [("q", "a b&c=é")]),
        ({}, []),
    ],
)
def test_each_shape_has_the_form_that_providers_read(form, pairs):
    assert parse_qsl(encode(form), keep_blank_values=True) == pairs


@given(st.dictionaries(st.text(min_size=1), st.text(), max_size=5))
def test_text_comes_through_whole(form):
    assert parse_qsl(encode(form), keep_blank_values=True, errors="surrogatepass") == list(form.items())


@pytest.mark.parametrize("value", [b"bytes", datetime(2026, 1, 1, tzinfo=UTC), {1, 2}, object()])
def test_what_has_no_form_is_an_error_that_names_the_field(value):
    with pytest.raises(TypeError, match="`since`"):
        encode({"since": value})


@pytest.mark.parametrize(
    "text", ["0.24e44444444444444444", "1E+1000", "-1E+1000", "1E-1001", "0E-1001", f"0.{'1' * 1001}", "9" * 1001]
)
def test_a_number_that_is_long_once_written_out_has_no_form(text):
    for value in (Decimal(text), *([int(text)] if text.isdigit() else [])):
        with pytest.raises(TypeError, match="`since` is a number of more than 1000 digits"):
            encode({"since": value})


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (Decimal("9" * NUMBER_DIGITS_MAX), "9" * NUMBER_DIGITS_MAX),
        (10**NUMBER_DIGITS_MAX - 1, "9" * NUMBER_DIGITS_MAX),
        (Decimal(f"-1E+{NUMBER_DIGITS_MAX - 1}"), "-1" + "0" * (NUMBER_DIGITS_MAX - 1)),
        (Decimal(f"1E-{NUMBER_DIGITS_MAX}"), "0." + "0" * (NUMBER_DIGITS_MAX - 1) + "1"),
        (Decimal("Infinity"), "Infinity"),
    ],
)
def test_a_number_within_the_limit_is_written_out(value, written):
    assert encode({"since": value}) == f"since={written}"


def test_depth_is_bounded():
    value = "x"
    for _ in range(DEPTH_MAX + 2):
        value = {"in": value}
    with pytest.raises(TypeError, match="nested deeper"):
        encode({"a": value})
