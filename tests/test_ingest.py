"""`ingest.canonical` refuses in the handler's own line, identifies, and brings to canonical form."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from headwater import Connector, Stream, ingest
from headwater.canonical.schema import Canonical, from_json_schema, from_struct
from headwater.clock import to_micros
from headwater.context import Invocation, invoking
from headwater.errors import EmissionError, InvalidPayloadError, OutsideRouteError

FETCHED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Parcel(Canonical):
    """A thing that is sent."""

    id: str
    weight: int
    price: Decimal | None = None


TYPES = {
    "parcel": from_struct(Parcel),
    "ticket": from_json_schema(
        "ticket",
        {
            "type": "object",
            "properties": {"id": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["id", "seats"],
            "additionalProperties": False,
        },
    ),
}
CONNECTOR = Connector(
    key="post", name="Post", version="1", streams=[Stream("parcels", mode="poll", schedule="0 * * * *")]
)


class NoHttp:
    async def request(self, method, url, **options):
        raise AssertionError("ingest asks for no HTTP")


@contextmanager
def invocation() -> Iterator[Invocation]:
    logger = logging.LoggerAdapter(logging.getLogger("test"), {})
    bound = Invocation(
        connector=CONNECTOR, connection="post", connection_id=1, streams=frozenset({"parcels"}), types=TYPES,
        stream="parcels", as_of=to_micros(FETCHED_AT), settings={}, secrets={}, http=NoHttp(), logger=logger,
    )  # fmt: skip
    with invoking(bound):
        yield bound


def emit(payload, **overrides):
    arguments = {"stream": "parcels", "idempotency_key": "k1"} | overrides
    return ingest.canonical(arguments.pop("type", "parcel"), payload, **arguments)


def test_outside_a_route_it_says_so():
    with pytest.raises(OutsideRouteError, match=r"ingest\.canonical"):
        emit({"id": "p1", "weight": 1})


def test_an_emission_is_collected_in_canonical_form():
    with invocation() as bound:
        emission = emit({"weight": 10**30, "id": "p1", "price": Decimal("1.10")})
    assert bound.emissions == [emission]
    assert emission.payload == b'{"id":"p1","price":"1.10","weight":1000000000000000000000000000000}'
    assert (emission.source_id, emission.as_of) == ("p1", to_micros(FETCHED_AT))


def test_a_mapping_a_struct_and_bytes_have_the_same_canonical_bytes():
    with invocation():
        forms = [
            emit({"id": "p1", "weight": 2, "price": None}),
            emit(Parcel(id="p1", weight=2)),
            emit(b'{ "weight": 2, "id": "p1" }'),
        ]
    assert len({(form.payload, form.hash) for form in forms}) == 1


def test_a_key_that_names_the_object_is_not_stored_a_second_time():
    with invocation():
        assert emit({"id": "p1", "weight": 1}, idempotency_key="post:parcel:p1").key is None
        assert emit({"id": "p1", "weight": 1}, idempotency_key="post:parcel:p2").key is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "parsel"}, "Did you mean `parcel`"),
        ({"stream": "parcel"}, "Did you mean `parcels`"),
        ({"as_of": datetime(2026, 1, 1)}, "aware"),
    ],
)
def test_what_does_not_exist_is_an_error_in_the_handlers_own_line(changes, words):
    with invocation() as bound:
        with pytest.raises(EmissionError, match=words):
            emit({"id": "p1", "weight": 1}, **changes)
        assert bound.emissions == []


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"id": "p1"}, "weight"),
        ({"id": "p1", "weight": "heavy"}, r"\$\.weight"),
        ({"id": "p1", "weight": 1, "colour": "red"}, "colour"),
        ({"id": "p1", "weight": 1, "price": 1.1}, "float"),
        ({"id": "\ud800", "weight": 1}, "surrogate"),
        (Parcel(id="p1", weight="heavy"), r"\$\.weight"),  # type: ignore[arg-type]
        (b"{", "parcel"),
        ({"id": "p" * 600, "weight": 1}, "source id"),
        (["p1"], "parcel"),
    ],
)
def test_a_payload_that_does_not_fit_is_named_and_refused(payload, words):
    with invocation() as bound:
        with pytest.raises(InvalidPayloadError, match=words):
            emit(payload)
        assert bound.emissions == []


def test_a_json_schema_type_is_validated_with_its_path():
    with invocation():
        assert emit({"seats": 2, "id": "t1"}, type="ticket").payload == b'{"id":"t1","seats":2}'
        with pytest.raises(InvalidPayloadError, match=r"\$\.seats"):
            emit({"id": "t1", "seats": "two"}, type="ticket")


def test_a_deletion_needs_no_payload_but_a_name():
    with invocation():
        emission = emit({}, source_id="p1", deleted=True)
        assert (emission.source_id, emission.payload, emission.deleted) == ("p1", b"{}", True)
        with pytest.raises(InvalidPayloadError, match="source_id"):
            emit({}, deleted=True)


def test_an_integer_id_is_named_by_its_digits():
    with invocation():
        assert emit({"weight": 1, "id": "7"}, source_id=None).source_id == "7"


def batch(payloads, **overrides):
    arguments = {"stream": "parcels", "idempotency_key": lambda payload: f"k:{payload['id']}"} | overrides
    return ingest.batch("parcel", payloads, **arguments)


GOOD, BAD = {"id": "p1", "weight": 1}, {"id": "p2", "weight": "heavy"}


def test_a_batch_stops_at_the_first_record_that_does_not_fit():
    with invocation(), pytest.raises(InvalidPayloadError, match="p2"):
        batch([GOOD, BAD])


def test_a_batch_that_continues_quarantines_what_does_not_fit():
    with invocation() as bound:
        result = batch([BAD, GOOD], continue_on_error=True)
    assert [emission.source_id for emission in result.emissions] == ["p1"]
    (set_aside,) = bound.quarantined
    assert (set_aside.source_id, set_aside.idempotency_key) == ("p2", "k:p2")
    assert set_aside.payload == b'{"id":"p2","weight":"heavy"}'
    assert "$.weight" in set_aside.reason


def test_what_cannot_even_be_written_down_is_quarantined_by_its_repr():
    with invocation() as bound:
        batch([{"id": "p3", "weight": object()}], continue_on_error=True)
    assert b"object" in bound.quarantined[0].payload


def test_a_batch_may_take_each_instant_from_its_payload():
    with invocation():
        result = batch([GOOD], as_of=lambda payload: datetime(2026, 1, 2, tzinfo=UTC))
    assert result.emissions[0].as_of == to_micros(datetime(2026, 1, 2, tzinfo=UTC))


def test_a_page_has_a_limit(monkeypatch):
    monkeypatch.setattr(ingest, "PAGE_EMISSIONS_MAX", 2)
    with invocation(), pytest.raises(EmissionError, match="more than 2"):
        batch([GOOD, GOOD, GOOD])
