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
from headwater.jsonvalue import content_hash

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
            "properties": {"id": {"type": ["string", "integer"]}, "seats": {"type": "integer"}},
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
    with pytest.raises(OutsideRouteError, match=r"^`ingest\.canonical` is bound"):
        emit({"id": "p1", "weight": 1})
    with pytest.raises(OutsideRouteError, match=r"^`ingest\.batch` is bound"):
        batch([GOOD])


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
        for named in ({"id": "p1"}, b'{"id":"p1"}', Parcel(id="p1", weight=1)):
            assert emit(named, deleted=True).source_id == "p1"
        assert emit(b"no JSON: it is not looked at", source_id="p1", deleted=True).source_id == "p1"
        with pytest.raises(InvalidPayloadError) as raised:
            emit({}, deleted=True)
    assert "parcel (no id) of stream parcels: The payload has no `id`; give `source_id`." in str(raised.value)


def test_an_integer_id_is_named_by_its_digits_and_no_other_value_is():
    with invocation():
        assert emit({"seats": 1, "id": 7}, type="ticket").source_id == "7"
        assert emit({"weight": 1, "id": "p1"}, source_id=8).source_id == "8"
        assert emit({"id": 9}, type="ticket", deleted=True).source_id == "9"
        for odd in (True, 7.0, ["7"]):
            with pytest.raises(InvalidPayloadError, match=r"has no `id`"):
                emit({"id": odd}, type="ticket", deleted=True)


def test_a_name_a_key_and_a_payload_may_be_as_long_as_their_limits_and_no_longer(monkeypatch):
    names, keys = ingest.SOURCE_ID_CHARACTERS_MAX, ingest.IDEMPOTENCY_KEY_CHARACTERS_MAX
    with invocation() as bound:
        for count in (1, names):
            assert emit(GOOD, source_id="p" * count).source_id == "p" * count
        for count in (1, keys):
            assert emit(GOOD, idempotency_key="k" * count).key is not None
        for identity in ("", "p" * (names + 1)):
            with pytest.raises(InvalidPayloadError, match=f"The source id must have 1 to {names} characters"):
                emit({"id": identity, "weight": 1})
        for count in (0, keys + 1):
            with pytest.raises(InvalidPayloadError, match=f"The idempotency key must have 1 to {keys} characters"):
                emit(GOOD, idempotency_key="k" * count)
        size = len(emit(GOOD).payload)
        monkeypatch.setattr(ingest, "PAYLOAD_BYTES_MAX", size)
        emit(GOOD)
        monkeypatch.setattr(ingest, "PAYLOAD_BYTES_MAX", size - 1)
        with pytest.raises(InvalidPayloadError, match=f"The payload is {size} bytes, more than {size - 1}"):
            emit(GOOD)
    assert len(bound.emissions) == 6


def test_an_unknown_type_is_named():
    with invocation(), pytest.raises(EmissionError) as raised:
        emit(GOOD, type="parsel")
    assert str(raised.value).startswith("There is no canonical type `parsel`.")


def test_a_released_record_is_written_unless_it_is_to_be_deleted():
    released = ingest.prepare(
        TYPES["parcel"], GOOD, connector_key="post", stream="parcels", idempotency_key="k", source_id=None, as_of=1
    )
    assert (released.deleted, released.payload) == (False, b'{"id":"p1","weight":1}')


def batch(payloads, **overrides):
    arguments = {"stream": "parcels", "idempotency_key": lambda payload: f"k:{payload['id']}"} | overrides
    return ingest.batch("parcel", payloads, **arguments)


GOOD, BAD = {"id": "p1", "weight": 1}, {"id": "p2", "weight": "heavy"}


def test_a_batch_asks_each_payload_for_its_name_its_key_and_its_instant():
    later = datetime(2026, 1, 2, tzinfo=UTC)
    with invocation() as bound:
        asked = batch(
            [GOOD, {"id": "p9", "weight": 9}],
            source_id=lambda payload: f"name of {payload['id']}",
            as_of=lambda payload: later if payload["id"] == "p9" else FETCHED_AT,
        )
        single = emit(GOOD, source_id="name of p1", idempotency_key="k:p1")
        fixed, unsaid = batch([GOOD], as_of=later), batch([GOOD], idempotency_key=None)
    assert [one.source_id for one in asked.emissions] == ["name of p1", "name of p9"]
    assert [one.as_of for one in asked.emissions] == [to_micros(FETCHED_AT), to_micros(later)]
    assert asked.emissions[0].key == single.key is not None
    assert asked.emissions[1].key not in (None, single.key)
    assert (fixed.emissions[0].as_of, unsaid.emissions[0].as_of) == (to_micros(later), to_micros(FETCHED_AT))
    assert unsaid.emissions[0].key is None
    assert len(bound.emissions) == 5


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
    (set_aside,) = bound.quarantined
    assert set_aside.payload.startswith(b'{"repr":"{')
    assert b"object" in set_aside.payload


def test_what_is_set_aside_is_kept_as_it_came_and_named_as_far_as_it_has_a_name():
    bodies = [b'{"id": "p4", "weight": "heavy"}', b'{ "weight": 1 }', b"{ broken"]
    with invocation() as bound:
        batch(bodies, idempotency_key=None, continue_on_error=True)
    assert [one.payload for one in bound.quarantined] == bodies
    assert [one.source_id for one in bound.quarantined] == ["p4", None, None]
    keys = [one.idempotency_key for one in bound.quarantined]
    assert keys == ["post:parcel:p4", *(f"post:parcel:{content_hash(body).hex()}" for body in bodies[1:])]
    assert bound.quarantined[0].reason.startswith("parcel p4 of stream parcels: ")
    assert bound.quarantined[1].reason.startswith("parcel (no id) of stream parcels: ")


def test_a_batch_may_take_each_instant_from_its_payload():
    with invocation():
        result = batch([GOOD], as_of=lambda payload: datetime(2026, 1, 2, tzinfo=UTC))
    assert result.emissions[0].as_of == to_micros(datetime(2026, 1, 2, tzinfo=UTC))


def test_a_page_has_a_limit(monkeypatch):
    monkeypatch.setattr(ingest, "PAGE_EMISSIONS_MAX", 2)
    with invocation():
        batch([GOOD, GOOD])
        with pytest.raises(EmissionError, match="more than 2 records") as raised:
            emit(GOOD)
    assert raised.value.hint == "Return a Page with has_more=True and emit the rest in the next one."
