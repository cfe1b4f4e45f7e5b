"""The fake provider behaves as Stripe's documentation says, fails on request, and its ledger is the truth."""

import asyncio
import json
import socket
import threading
from collections import Counter
from datetime import timedelta
from urllib.parse import urlencode

import msgspec
import pytest
import stripe
import uvicorn

from headwater.clock import SystemClock
from headwater.errors import ProviderError
from headwater.testing.answering import answering
from headwater.testing.clock import FakeClock
from headwater.testing.provider import API_KEY, FakeStripe, Faults, WebhookFaults, seed_account
from headwater.testing.provider_webhook import RETRY_SECONDS
from headwater.transport import TransportRequest

DAY = 86_400


class Client:
    """Asks the app in process."""

    def __init__(self, provider, *, key=API_KEY):
        self.provider = provider
        self._transport = answering(provider)
        self._key = key

    def ask(self, method, path, params=(), **headers):
        query, body = (urlencode(params), b"") if method == "GET" else ("", urlencode(params).encode())
        request = TransportRequest(
            method=method,
            url=f"https://api.stripe.com{path}" + (f"?{query}" if query else ""),
            headers={"Authorization": f"Bearer {self._key}"}
            | {name.replace("_", "-"): text for name, text in headers.items()},
            body=body,
        )
        answer = asyncio.run(self._transport(request))
        return answer.status, msgspec.json.decode(answer.body), answer.headers

    def ids(self, path, *params):
        status, body, _ = self.ask("GET", path, params)
        assert status == 200, body
        return [item["id"] for item in body["data"]], body["has_more"]

    def all_ids(self, path, *params):
        found, has_more, after = [], True, ()
        while has_more:
            page, has_more = self.ids(path, ("limit", 3), *params, *after)
            found += page
            after = (("starting_after", page[-1]),) if page else ()
        return found


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def provider(clock):
    return FakeStripe(7, clock)


@pytest.fixture
def client(provider):
    return Client(provider)


def pass_time(clock, seconds):
    asyncio.run(clock.advance(seconds))


def customers(provider, clock, count):
    made = []
    for number in range(count):
        made.append(provider.account.create_customer({"name": f"Customer {number}"})["id"])
        pass_time(clock, 10)
    return made


def test_lists_are_newest_first_and_paged_both_ways(provider, client, clock):
    made = customers(provider, clock, 7)
    assert client.all_ids("/v1/customers") == made[::-1]
    page, has_more = client.ids("/v1/customers", ("limit", 2), ("ending_before", made[2]))
    assert page == [made[4], made[3]]
    assert has_more
    page, has_more = client.ids("/v1/customers", ("limit", 10), ("ending_before", made[2]))
    assert page == made[:2:-1]
    assert not has_more


@pytest.mark.parametrize(
    ("bound", "expected"), [("gt", [4, 3]), ("gte", [4, 3, 2]), ("lt", [1, 0]), ("lte", [2, 1, 0])]
)
def test_created_bounds_every_list(provider, client, clock, bound, expected):
    made = customers(provider, clock, 5)
    middle = provider.ledger.get("customers", made[2])["created"]
    for path, ids in (("/v1/customers", made), ("/v1/events", client.ids("/v1/events")[0][::-1])):
        found, _ = client.ids(path, (f"created[{bound}]", middle))
        assert found == [ids[index] for index in expected]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "many", "1.5"])
def test_a_limit_outside_1_to_100_is_refused(client, limit):
    status, body, _ = client.ask("GET", "/v1/customers", [("limit", limit)])
    assert (status, body["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize(
    "params",
    [[("colour", "red")], [("created[near]", "1")], [("types[]", "customer.created")], [("created[gte]", "now")]],
)
def test_unknown_parameters_are_refused(client, params):
    status, body, _ = client.ask("GET", "/v1/customers", params)
    assert status == 400, body


def test_a_cursor_that_was_deleted_is_refused(provider, client, clock):
    made = customers(provider, clock, 3)
    provider.account.delete("customers", made[1])
    status, body, _ = client.ask("GET", "/v1/customers", [("starting_after", made[1])])
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, "resource_missing", "starting_after")


def test_a_deleted_object_says_so_and_is_listed_no_more(provider, client):
    identity = client.ask("POST", "/v1/customers", [("email", "a@example.com")])[1]["id"]
    gone = {"id": identity, "object": "customer", "deleted": True}
    assert client.ask("DELETE", f"/v1/customers/{identity}")[1] == gone
    assert client.ask("GET", f"/v1/customers/{identity}")[:2] == (200, gone)
    assert client.ask("GET", "/v1/customers/cus_unknown")[0] == 404
    assert client.ids("/v1/customers") == ([], False)
    assert [change.state and change.state["email"] for change in provider.ledger.history(identity)] == [
        "a@example.com",
        None,
    ]


def test_a_wrong_key_and_an_unknown_path_are_refused(provider, client):
    assert Client(provider, key="sk_test_wrong").ask("GET", "/v1/customers")[0] == 401
    for method, path in (
        ("GET", "/v1/unicorns"),
        ("GET", "/v2/customers"),
        ("PATCH", "/v1/customers"),
        ("DELETE", "/v1/charges/ch_1"),
    ):
        assert client.ask(method, path)[0] == 404


def test_an_idempotency_key_has_one_effect_and_one_answer(provider, client):
    first = client.ask("POST", "/v1/customers", [("name", "Ada")], idempotency_key="k1")
    again = client.ask("POST", "/v1/customers", [("name", "Ada")], idempotency_key="k1")
    assert again[:2] == first[:2]
    assert again[2]["idempotent-replayed"] == "true"
    assert len(provider.ledger.current("customers")) == 1
    other = client.ask("POST", "/v1/customers", [("name", "Bo")], idempotency_key="k1")
    assert (other[0], other[1]["error"]["type"]) == (400, "idempotency_error")


def test_updates_merge_metadata_and_tell_what_was_before(provider, client):
    identity = client.ask("POST", "/v1/customers", [("name", "Ada"), ("metadata[a]", "1"), ("metadata[7]", "x")])[1][
        "id"
    ]
    changes = [("name", "Ada B"), ("metadata[a]", ""), ("metadata[b]", "2")]
    changed = client.ask("POST", f"/v1/customers/{identity}", changes)[1]
    assert (changed["name"], changed["metadata"]) == ("Ada B", {"7": "x", "b": "2"})
    event = client.ask("GET", "/v1/events", [("type", "customer.updated")])[1]["data"][0]
    assert event["data"]["object"] == changed
    assert event["data"]["previous_attributes"]["name"] == "Ada"
    assert client.ask("POST", f"/v1/customers/{identity}", [("id", "cus_2")])[0] == 400


def test_money_moves_as_stripe_tells_it(provider, client):
    customer = client.ask("POST", "/v1/customers", [("name", "Ada")])[1]["id"]
    product = client.ask("POST", "/v1/products", [("name", "Boat")])[1]["id"]
    price = client.ask(
        "POST", "/v1/prices",
        [("product", product), ("currency", "usd"), ("unit_amount", "1000"), ("recurring[interval]", "month")],
    )[1]["id"]  # fmt: skip
    subscription = client.ask(
        "POST", "/v1/subscriptions", [("customer", customer), ("items[0][price]", price), ("items[0][quantity]", "2")]
    )[1]
    invoice = client.ask("GET", f"/v1/invoices/{subscription['latest_invoice']}")[1]
    assert (invoice["status"], invoice["subtotal"], invoice["total"], invoice["amount_paid"]) == (
        "paid",
        2000,
        2200,
        2200,
    )
    assert invoice["parent"]["subscription_details"]["subscription"] == subscription["id"]
    (charge,) = client.ids("/v1/charges")[0]
    refund = client.ask("POST", "/v1/refunds", [("charge", charge), ("amount", "200")])[1]
    assert client.ask("GET", f"/v1/charges/{charge}")[1]["amount_refunded"] == 200
    assert client.ask("POST", "/v1/refunds", [("charge", charge), ("amount", "2001")])[0] == 400
    note = client.ask("POST", "/v1/credit_notes", [("invoice", invoice["id"]), ("amount", "100")])[1]
    payout = client.ask("POST", "/v1/payouts", [("amount", "500"), ("currency", "usd")])[1]
    dispute = provider.account.create_dispute({"charge": charge})
    assert client.ask("POST", f"/v1/disputes/{dispute['id']}/close")[1]["status"] == "lost"
    moves = client.ask("GET", "/v1/balance_transactions")[1]["data"]
    assert {move["source"] for move in moves} == {charge, refund["id"], payout["id"], dispute["id"]}
    assert note["invoice"] == invoice["id"]
    assert client.ask("DELETE", f"/v1/subscriptions/{subscription['id']}")[1]["status"] == "canceled"
    assert client.ids("/v1/subscriptions")[0] == []
    assert client.ids("/v1/subscriptions", ("status", "all"))[0] == [subscription["id"]]
    assert client.ask("DELETE", f"/v1/products/{product}")[0] == 400
    told = Counter(event["type"] for event in provider.ledger.current("events").values())
    assert told["charge.refunded"] == told["charge.dispute.closed"] == told["customer.subscription.deleted"] == 1


def test_events_are_kept_for_thirty_days_and_filtered_by_types(provider, client, clock):
    identity = provider.account.create_customer({})["id"]
    pass_time(clock, 29 * DAY)
    provider.account.change("customers", identity, {"name": "Ada"})
    provider.account.create_product({"name": "Boat"})
    assert len(client.ids("/v1/events")[0]) == 3
    types = [("types[]", "customer.created"), ("types[]", "customer.updated")]
    assert len(client.ids("/v1/events", *types)[0]) == 2
    assert len(client.ids("/v1/events", ("type", "product.*"))[0]) == 1
    assert client.ask("GET", "/v1/events", [("types[]", f"a.{number}") for number in range(21)])[0] == 400
    pass_time(clock, 2 * DAY)
    assert len(client.ids("/v1/events", *types)[0]) == 1


def test_pending_money_becomes_available_without_an_event(provider, clock):
    provider.account.create_charge({"amount": 1000})
    events = len(provider.ledger.current("events"))
    assert provider.account.settle_balance() == 0
    pass_time(clock, 2 * DAY)
    assert provider.account.settle_balance() == 1
    assert len(provider.ledger.current("events")) == events


def test_the_same_seed_makes_the_same_account():
    def account(seed):
        clock = FakeClock()
        provider = FakeStripe(seed, clock)
        seed_account(provider, customers=30)
        for _ in range(100):
            provider.activity.step()
        return {kind: provider.ledger.current(kind) for kind in ("customers", "invoices", "events")}

    assert account(1) == account(1)
    assert account(1) != account(2)


def test_a_seeded_past_lies_before_the_events_log(provider, client):
    seed_account(provider, customers=40)
    for kind in ("customers", "products", "prices", "subscriptions", "invoices", "charges", "refunds", "payouts",
                 "credit_notes", "balance_transactions"):  # fmt: skip
        states = list(provider.ledger.current(kind).values())
        assert states, kind
        assert all(state["created"] <= provider.ledger.now_seconds() - 31 * DAY for state in states)
    assert client.ids("/v1/events") == ([], False)
    assert client.all_ids("/v1/customers") == list(provider.ledger.current("customers"))[::-1]


def test_faults_come_as_they_are_asked_for(provider, client):
    provider.faults = Faults(rate_limited=1, retry_after_seconds=3)
    status, _, headers = client.ask("GET", "/v1/customers")
    assert (status, headers["retry-after"]) == (429, "3")
    provider.faults = Faults(failed=1)
    assert client.ask("GET", "/v1/customers")[0] in {500, 502, 503}
    provider.faults = Faults(reset=1)
    with pytest.raises(ProviderError):
        client.ask("GET", "/v1/customers")
    provider.faults = Faults()
    assert client.ask("GET", "/v1/customers")[0] == 200


def test_latency_passes_on_the_clock(provider, clock):
    provider.faults = Faults(latency_seconds=10)

    async def main():
        asking = asyncio.create_task(
            answering(provider)(TransportRequest(method="GET", url="https://api.stripe.com/v1/customers"))
        )
        await clock.advance(0)
        assert not asking.done()
        await clock.advance(10)
        assert asking.done()

    asyncio.run(main())


def test_churn_changes_the_account_while_it_is_read(provider, client, clock):
    made = customers(provider, clock, 4)
    provider.faults = Faults(churn=1)
    page, has_more = client.ids("/v1/customers", ("limit", 2))
    assert page == [made[3], made[2]]
    assert has_more
    assert made[2] not in provider.ledger.current("customers")
    assert len(provider.ledger.current("customers")) == 4


class Receiver:
    """A webhook endpoint that keeps what it is sent."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.got = []

    async def __call__(self, url, headers, body):
        self.got.append((url, headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        if status is None:
            raise ConnectionResetError
        return status

    def events(self):
        return [json.loads(body)["id"] for _, _, body in self.got]


def deliver(provider):
    return asyncio.run(provider.webhooks.deliver())


def test_deliveries_are_proved_as_stripes_own_library_wants_it():
    provider = FakeStripe(7, SystemClock(), post=(receiver := Receiver()))
    endpoint = provider.webhooks.register("https://example.com/hook")
    provider.account.create_customer({"name": "Ünal"})
    deliver(provider)
    ((url, headers, body),) = receiver.got
    assert url == "https://example.com/hook"
    event = stripe.Webhook.construct_event(body, headers["stripe-signature"], endpoint.secrets[0][0])
    assert event["data"]["object"]["name"] == "Ünal"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, headers["stripe-signature"], "whsec_other")


def test_a_rolled_secret_signs_beside_the_old_one_until_the_overlap_ends(provider, clock):
    provider.webhooks.post = receiver = Receiver()
    endpoint = provider.webhooks.register("https://example.com/hook")
    old = endpoint.secrets[0][0]
    new = provider.webhooks.roll_secret(endpoint.id, overlap_seconds=3600)
    provider.account.create_customer({})
    deliver(provider)
    pass_time(clock, 3601)
    provider.account.create_customer({})
    deliver(provider)
    first, second = (headers["stripe-signature"] for _, headers, _ in receiver.got)
    assert first.count("v1=") == 2
    assert second.count("v1=") == 1
    assert [secret for secret, _ in endpoint.secrets] == [new]
    assert old != new


def test_a_delivery_is_tried_again_with_backoff_until_it_is_answered(provider, clock):
    provider.webhooks.post = receiver = Receiver(500, None, 200)
    provider.webhooks.register("https://example.com/hook")
    provider.account.create_customer({})
    assert [deliver(provider), deliver(provider)] == [1, 0]
    pass_time(clock, RETRY_SECONDS[0])
    assert deliver(provider) == 1
    assert provider.webhooks.next_at == clock.now() + timedelta(seconds=RETRY_SECONDS[1])
    pass_time(clock, RETRY_SECONDS[1])
    assert deliver(provider) == 1
    assert len(set(receiver.events())) == 1
    assert provider.webhooks.waiting == 0


def test_a_delivery_under_way_is_still_waited_for(provider):
    seen = []

    async def post(url, headers, body):
        seen.append(provider.webhooks.waiting)
        return 200

    provider.webhooks.post = post
    provider.webhooks.register("https://example.com/hook")
    provider.account.create_customer({})
    provider.account.create_customer({})
    deliver(provider)
    assert (seen, provider.webhooks.waiting) == ([2, 1], 0)


def test_a_delivery_that_nobody_takes_is_given_up_after_three_days(provider, clock):
    provider.webhooks.post = Receiver(*[500] * 20)
    provider.webhooks.register("https://example.com/hook")
    provider.account.create_customer({})
    for seconds in (0, *RETRY_SECONDS):
        pass_time(clock, seconds)
        assert deliver(provider) == 1
    assert provider.webhooks.waiting == 0
    assert len(provider.webhooks.abandoned) == 1


def test_duplicates_reorder_lateness_and_lost_answers_come_as_asked(provider, clock):
    provider.webhooks.post = receiver = Receiver()
    provider.webhooks.register("https://example.com/hook")
    provider.webhooks.faults = WebhookFaults(duplicated=0.3, reordered=0.3, late=0.3, lost_response=0.3)
    for _ in range(60):
        provider.account.create_customer({})
        deliver(provider)
        pass_time(clock, 20)
    while provider.webhooks.waiting:
        pass_time(clock, 3600)
        deliver(provider)
    events = list(provider.ledger.current("events"))
    got = receiver.events()
    assert set(got) == set(events)
    assert max(Counter(got).values()) >= 2
    assert list(dict.fromkeys(got)) != events


def test_an_endpoint_is_sent_the_types_that_it_enabled(provider, client):
    provider.webhooks.post = receiver = Receiver()
    made = client.ask(
        "POST", "/v1/webhook_endpoints", [("url", "https://example.com/hook"), ("enabled_events[]", "customer.created")]
    )[1]
    assert made["secret"].startswith("whsec_")
    provider.account.create_customer({})
    provider.account.create_product({"name": "Boat"})
    assert deliver(provider) == 1
    (listed,) = client.ask("GET", "/v1/webhook_endpoints")[1]["data"]
    assert "secret" not in listed
    provider.account.create_customer({})
    assert client.ask("DELETE", f"/v1/webhook_endpoints/{made['id']}")[1]["deleted"] is True
    deliver(provider)
    assert len(receiver.got) == 1


class Server(uvicorn.Server):
    """Says when it has started."""

    def __init__(self, config):
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets=None):
        await super().startup(sockets)
        self.ready.set()


@pytest.fixture
def served():
    """The fake on a loopback port, in a thread of its own, and the SDK's client for it."""
    provider = FakeStripe(7, SystemClock())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(uvicorn.Config(provider, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert server.ready.wait(10)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        http = stripe.RequestsClient()
        yield (
            provider,
            stripe.StripeClient(API_KEY, base_addresses={"api": address}, http_client=http, max_network_retries=0),
        )
        http.close()
        server.should_exit = True
        thread.join()


def test_stripes_own_sdk_is_at_home(served):
    provider, sdk = served
    made = [sdk.v1.customers.create({"name": f"C{number}", "metadata": {"n": str(number)}}).id for number in range(5)]
    listed = [customer.id for customer in sdk.v1.customers.list({"limit": 2}).auto_paging_iter()]
    assert listed == made[::-1]
    sdk.v1.customers.update(made[0], {"email": "new@example.com"})
    assert sdk.v1.customers.retrieve(made[0]).email == "new@example.com"
    assert sdk.v1.customers.delete(made[1]).deleted
    event = sdk.v1.events.list({"types": ["customer.deleted"]}).data[0]
    assert event.data.object["id"] == made[1]
    with pytest.raises(stripe.InvalidRequestError, match="No such customer"):
        sdk.v1.customers.retrieve("cus_nobody")
    provider.faults = Faults(rate_limited=1)
    with pytest.raises(stripe.RateLimitError):
        sdk.v1.customers.list()
    provider.faults = Faults(reset=1)
    with pytest.raises(stripe.APIConnectionError):
        sdk.v1.customers.list()
