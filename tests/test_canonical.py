"""Canonical form: stable, indifferent to the order of keys, exact to the last digit, closed to what does not fit."""

import datetime as dt
import types
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.canonical.registry import STRUCTS, shipped
from headwater.canonical.schema import Canonical, Part, from_json_schema, from_struct, type_name
from headwater.errors import InvalidPayloadError
from headwater.jsonvalue import canonical_bytes, decode

INSTANTS = st.datetimes(min_value=dt.datetime(1970, 1, 1), max_value=dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
WHOLE = st.integers(min_value=-(10**40), max_value=10**40)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | DECIMALS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


class Measure(Canonical):
    """A type with every kind of field that takes a fraction."""

    id: str
    rate: Decimal | None = None
    count: int | None = None
    extra: dict[str, Any] | None = None
    at: dt.datetime | None = None


MEASURE = from_struct(Measure)
READING = from_json_schema(
    "reading",
    {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "level": {"type": ["number", "null"]},
            "steps": {"type": "array", "items": {"type": "number"}},
        },
        "required": ["id"],
        "additionalProperties": False,
    },
)


def values(hint: Any) -> st.SearchStrategy[Any]:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return st.one_of(*(values(part) for part in parts))
    if origin is tuple:
        return st.lists(values(parts[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(TEXT, JSON if parts[1] is Any else values(parts[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, Part):
        return payloads(hint)
    plain: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT, int: WHOLE, bool: st.booleans(), Decimal: DECIMALS, dt.datetime: INSTANTS, dt.date: st.dates(),
        type(None): st.none(),
    }  # fmt: skip
    return plain[hint]


def payloads(struct: type[msgspec.Struct]) -> st.SearchStrategy[dict[str, Any]]:
    hints = get_type_hints(struct)
    fields = {name: values(hints[name]) for name in struct.__struct_fields__}
    required = {"id": st.text("abc123", min_size=1)} if "id" in fields and not issubclass(struct, Part) else {}
    return st.fixed_dictionaries(
        required, optional={name: field for name, field in fields.items() if name not in required}
    )


@pytest.mark.parametrize("struct", STRUCTS, ids=type_name)
def test_canonical_form_is_stable_and_indifferent_to_the_order_of_keys(struct):
    kind = shipped()[type_name(struct)]

    @given(payloads(struct))
    def check(payload):
        encoded = kind.encode(payload)
        assert kind.encode(encoded) == encoded
        assert kind.encode(dict(reversed(payload.items()))) == encoded
        assert kind.encode(msgspec.convert(payload, struct)) == encoded
        assert canonical_bytes(decode(encoded)) == encoded

    check()


@pytest.mark.parametrize("struct", STRUCTS, ids=type_name)
def test_a_shipped_type_asks_for_its_id_alone_and_refuses_unknown_fields(struct):
    kind = shipped()[type_name(struct)]
    assert kind.encode({"id": "a"}) == b'{"id":"a"}'
    with pytest.raises(InvalidPayloadError, match="unknown field `colour`"):
        kind.encode({"id": "a", "colour": "red"})
    with pytest.raises(InvalidPayloadError, match="missing required field `id`"):
        kind.encode({})


def test_every_type_of_the_contract_is_shipped():
    wanted = {
        "customer", "product", "price", "subscription", "invoice", "payment", "refund", "credit_note", "dispute",
        "payout", "balance_transaction", "account", "event", "repository", "issue", "pull_request", "user",
    }  # fmt: skip
    assert wanted <= set(shipped())
    assert shipped() is shipped()


def test_columns_say_what_kind_of_value_a_field_holds():
    columns = dict(shipped()["price"].columns)
    assert columns["unit_amount"] == "integer"
    assert columns["unit_amount_decimal"] == "decimal"
    assert columns["active"] == "boolean"
    assert columns["created_at"] == "text"
    assert columns["metadata"] == "json"
    assert dict(shipped()["invoice"].columns)["lines"] == "json"


def test_the_json_schema_of_a_shipped_type_refuses_unknown_fields():
    schema = shipped()["refund"].json_schema()
    assert schema["$defs"]["Refund"]["additionalProperties"] is False


def test_digits_survive():
    digits = "123456789012345678901234567890.123456789012345678901234567890"
    encoded = MEASURE.encode(
        {"id": "a", "rate": Decimal(digits), "count": 10**30, "extra": {"deep": [Decimal(digits)]}}
    )
    assert encoded == (
        b'{"count":1000000000000000000000000000000,"extra":{"deep":["%b"]},"id":"a","rate":"%b"}'
        % (digits.encode(), digits.encode())
    )
    assert MEASURE.encode(b'{"id": "a", "rate": %b}' % digits.encode()) == b'{"id":"a","rate":"%b"}' % digits.encode()


@pytest.mark.parametrize(
    "payload",
    [
        {"id": "a", "rate": 1.5},
        {"id": "a", "count": 1.0},
        {"id": "a", "extra": {"deep": [{"deeper": 0.1}]}},
        {"id": "a", "extra": {"tuple": (1, 0.1)}},
        {"id": "a", "extra": types.MappingProxyType({"held": types.MappingProxyType({"x": 0.1})})},
        Measure(id="a", rate=1.5),  # type: ignore[arg-type]
        Measure(id="a", count=2.0),  # type: ignore[arg-type]
        Measure(id="a", extra={"x": float("nan")}),
    ],
    ids=repr,
)
def test_a_float_is_refused_wherever_it_hides(payload):
    with pytest.raises(InvalidPayloadError, match="float"):
        MEASURE.encode(payload)


@pytest.mark.parametrize("word", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_a_decimal_that_is_no_number_is_refused(word):
    for payload in (
        {"id": "a", "rate": Decimal(word)},
        {"id": "a", "rate": word},
        b'{"id":"a","rate":"%b"}' % word.encode(),
    ):
        with pytest.raises(InvalidPayloadError):
            MEASURE.encode(payload)
    assert MEASURE.encode({"id": word, "extra": {"said": word}}) == b'{"extra":{"said":"%b"},"id":"%b"}' % (
        word.encode(),
        word.encode(),
    )


def test_a_struct_that_was_given_the_wrong_kind_of_value_is_refused():
    with pytest.raises(InvalidPayloadError, match="Expected `str`"):
        MEASURE.encode(Measure(id=5))  # type: ignore[arg-type]


def test_a_type_that_declares_a_float_is_refused_at_once():
    with pytest.raises(TypeError, match="Wrong declares a float"):
        from_struct(type("Wrong", (Canonical,), {"__annotations__": {"id": str, "rates": list[float]}}))


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b'{"id": "\xed\xa0\x80"}',
        {"id": "\ud800"},
        {"id": "a", "extra": {1: "a number for a key"}},
        {"id": "a", "at": dt.datetime(2026, 1, 1)},
        {"id": "a", "extra": {"x": object()}},
        b'{"id":"a","extra":' + b'{"x":' * 5000 + b"1" + b"}" * 5001,
        b'{"id":"a","count":' + b"9" * 5000 + b"}",
    ],
    ids=lambda payload: ascii(payload)[:40],
)
def test_what_has_no_canonical_form_is_refused_without_a_crash(payload):
    kind = MEASURE if not (isinstance(payload, dict) and "at" in payload) else shipped()["customer"]
    renamed = {"id": "a", "created_at": payload["at"]} if kind is not MEASURE else payload
    with pytest.raises(InvalidPayloadError):
        kind.encode(renamed)


def test_a_mapping_nested_without_end_is_refused():
    deep: dict[str, Any] = {}
    deep["x"] = deep
    with pytest.raises(InvalidPayloadError, match="nested deeper"):
        MEASURE.encode({"id": "a", "extra": deep})


@given(st.none() | DECIMALS | WHOLE, st.lists(DECIMALS, max_size=3))
def test_a_json_schema_type_keeps_its_digits_and_takes_its_own_form_again(level, steps):
    encoded = READING.encode({"id": "a", "level": level, "steps": steps})
    assert READING.encode(encoded) == encoded
    assert READING.encode(decode(encoded)) == encoded


def test_a_json_schema_type_names_the_place_of_what_does_not_fit():
    with pytest.raises(InvalidPayloadError, match=r"at `\$\.steps\[1\]`"):
        READING.encode({"id": "a", "steps": [1, "many"]})
    with pytest.raises(InvalidPayloadError, match="float"):
        READING.encode({"id": "a", "level": 0.5})


def test_an_own_name_wins_and_a_class_name_is_spelt_out():
    class CreditNoteLine(Canonical):
        id: str

    class Odd(Canonical):
        type_name = "even"
        id: str
        word: Literal["a", "b"] = "a"

    assert type_name(CreditNoteLine) == "credit_note_line"
    assert type_name(Odd) == "even"
    assert dict(from_struct(Odd).columns) == {"id": "text", "word": "text"}
