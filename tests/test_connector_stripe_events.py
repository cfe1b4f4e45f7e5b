"""What the Stripe connector makes of one event or one object, and of what it refuses."""

import pytest

from headwater.errors import CredentialsError, InvalidPayloadError, ResponseError, StopError
from headwater.testing.answering import answering
from headwater.testing.clock import FakeClock
from headwater.testing.drive import deliver, drive, loaded_project
from headwater.testing.provider import FakeStripe
from headwater.transport import TransportResponse
from stripe_project import PROJECT, SECRETS, ask, lib, send


@pytest.fixture
def provider():
    return FakeStripe(11, FakeClock())


def event_of(kind, item, **fields):
    return {
        "id": "evt_1",
        "object": "event",
        "created": 1_767_225_600,
        "type": kind,
        "data": {"object": item},
        **fields,
    }


def test_one_delivery_feeds_several_streams(provider):
    charge = {
        "id": "ch_1", "object": "charge", "amount": 500, "currency": "usd",
        "refunds": {"object": "list", "data": [{"id": "re_1", "object": "refund", "amount": 200, "charge": "ch_1"}]},
    }  # fmt: skip
    result = send(provider, event_of("charge.refunded", charge))
    assert [(one.stream, one.type, one.source_id) for one in result.emissions] == [
        ("charges", "payment", "ch_1"),
        ("refunds", "refund", "re_1"),
    ]
    assert len({one.key for one in result.emissions}) == 2
    assert {one.as_of for one in result.emissions} == {1_767_225_600_999_999}


@pytest.mark.parametrize(
    ("kind", "item", "object_id"),
    [
        ("payment_intent.succeeded", {"id": "pi_1", "object": "payment_intent", "rate": 0.5}, "pi_1"),
        ("invoice.upcoming", {"object": "invoice", "amount_due": 5}, None),
        ("balance.available", {"object": "balance"}, None),
        ("an.event.of.next.year", {"id": "x_1", "object": "unheard_of"}, "x_1"),
    ],
)
def test_what_belongs_to_no_stream_becomes_an_event(provider, kind, item, object_id):
    (record,) = send(provider, event_of(kind, item, livemode=True)).records
    assert (record["kind"], record.get("object_id"), record["test"]) == (kind, object_id, False)
    assert record["created_at"] == "2026-01-01T00:00:00Z"


def test_a_thin_event_is_taken(provider):
    thin = {
        "id": "evt_test_65", "object": "v2.core.event", "type": "v1.billing.meter.no_meter_found", "livemode": False,
        "created": "2026-01-01T06:20:52.246Z", "related_object": {"id": "mtr_1", "type": "billing.meter"},
    }  # fmt: skip
    result = send(provider, thin)
    (record,) = result.records
    assert (record["object_type"], record["object_id"]) == ("billing.meter", "mtr_1")
    assert result.emissions[0].as_of == 1_767_248_452_246_000


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"id": "evt_1"}', b'{"id": 5, "created": 1}', b'{"id": "e", "created": true}']
)
def test_a_body_that_is_no_event_is_an_invalid_payload(provider, body):
    with pytest.raises(InvalidPayloadError, match="no Stripe event"):
        deliver(PROJECT, body, transport=answering(provider), secrets=SECRETS, clock=provider.clock)


@pytest.mark.parametrize("kind", ["customer.deleted", "product.deleted", "price.deleted", "invoice.deleted"])
def test_a_deletion_buries_its_record(provider, kind):
    word = kind.partition(".")[0]
    (emission,) = send(provider, event_of(kind, {"id": "x_1", "object": word})).emissions
    assert (emission.deleted, emission.type, emission.source_id) == (True, word, "x_1")


def test_an_ended_subscription_is_no_deletion(provider):
    item = {"id": "sub_1", "object": "subscription", "status": "canceled"}
    (emission,) = send(provider, event_of("customer.subscription.deleted", item)).emissions
    assert not emission.deleted


def test_expandable_fields_come_to_the_same_id():
    transform = lib("transform")
    short = {"id": "ch_1", "customer": "cus_1", "balance_transaction": "txn_1", "payment_intent": None}
    long = short | {"customer": {"id": "cus_1", "name": "Ada"}, "balance_transaction": {"id": "txn_1"}}
    assert transform.charge(short) == transform.charge(long)


def test_older_shapes_say_the_same():
    transform = lib("transform")
    new = transform.invoice({
        "id": "in_1", "parent": {"subscription_details": {"subscription": "sub_1"}}, "total_taxes": [{"amount": 7}],
        "lines": {"data": [{"id": "il_1", "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}}}]},
    })  # fmt: skip
    old = transform.invoice({
        "id": "in_1", "subscription": "sub_1", "tax": 7,
        "lines": {"data": [{"id": "il_1", "price": {"id": "price_1", "product": "prod_1"}}]},
    })  # fmt: skip
    assert new == old
    item = {"id": "si_1", "price": "price_1"}
    period = {"current_period_start": 1, "current_period_end": 2}
    moved = transform.subscription({"id": "sub_1", "items": {"data": [item | period]}})
    assert moved == transform.subscription({"id": "sub_1", "items": {"data": [item]}} | period)


@pytest.mark.parametrize("cursor", ["garbage", "[1]", "7"])
def test_a_cursor_of_something_else_is_refused(provider, cursor):
    with pytest.raises(StopError, match="none of this connector"):
        ask(provider, "customers", cursor)


def test_a_refusal_is_told_in_stripes_words(provider):
    cursor = '{"since":1767225600,"listing":{"after":"cus_1","created":1}}'
    with pytest.raises(ResponseError, match="No such event"):
        ask(provider, "customers", '{"since":1767225600,"next":1767225600,"up":"evt_unknown"}')
    app = answering_with(400, b'{"error": {"message": "The moon is full.", "param": "limit"}}')
    with pytest.raises(ResponseError, match=r"refused /v1/customers: The moon is full\."):
        drive(PROJECT, "customers", transport=app, secrets=SECRETS, cursor=cursor, clock=provider.clock)


def answering_with(status, body):
    async def transport(request):
        return TransportResponse(status=status, body=body)

    return transport


def test_wrong_credentials_need_the_operator(provider):
    with pytest.raises(CredentialsError):
        drive(
            PROJECT,
            "customers",
            transport=answering(provider),
            secrets=SECRETS | {"api_key": "sk_test_no"},
            clock=provider.clock,
        )


def test_every_stream_has_at_most_the_event_types_that_one_request_takes():
    for resource in lib("stream").RESOURCES:
        assert len(resource.event_types) <= 20
        assert len(set(resource.event_types)) == len(resource.event_types)


def test_the_pinned_version_is_the_one_that_the_operator_is_told():
    instructions = loaded_project(PROJECT).connector.connection.instructions
    assert lib("api").API_VERSION in instructions
