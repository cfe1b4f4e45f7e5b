"""The Stripe connector against the fake provider: the same bytes by every way, and in the end the provider's truth."""

import asyncio
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from headwater.canonical.registry import shipped
from headwater.record import Outcome
from headwater.run import Window
from headwater.stores.outcome import Content, Known, decide
from headwater.testing.answering import answering
from headwater.testing.clock import FakeClock
from headwater.testing.drive import deliver, drive
from headwater.testing.provider import FakeStripe, Faults, WebhookFaults, seed_account
from stripe_project import PROJECT, SECRETS, ask, lib, send

STREAMS = {
    "customers": "customer",
    "products": "product",
    "prices": "price",
    "subscriptions": "subscription",
    "invoices": "invoice",
    "charges": "payment",
    "refunds": "refund",
    "disputes": "dispute",
    "credit_notes": "credit_note",
    "payouts": "payout",
    "balance_transactions": "balance_transaction",
}
DAY = 86_400


class RunningClock(FakeClock):
    """A clock on which a sleep takes no time but its own."""

    async def sleep(self, seconds):
        self._elapsed += max(seconds, 0)

    def pass_time(self, seconds):
        self._elapsed += seconds


@pytest.fixture
def clock():
    return RunningClock()


@pytest.fixture
def provider(clock):
    return FakeStripe(11, clock)


def run(provider, stream, cursor=None, **options):
    """All pages of one run: their results and the last cursor."""
    results = []
    while True:
        result = ask(provider, stream, cursor, **options)
        results.append(result)
        assert len(results) < 1000
        if not result.page.has_more:
            return results, result.page.cursor
        assert result.page.cursor != cursor, "a cursor advances while there is more"
        cursor = result.page.cursor


def emissions(results):
    return [emission for result in results for emission in result.emissions]


def live(provider, *, steps=150, every=7):
    provider.activity.offer()
    for _ in range(steps):
        provider.activity.step()
        provider.clock.pass_time(every)


def expected(provider, stream):
    """The canonical bytes of every live object of a stream, by id, from the provider's ledger."""
    resource = lib("stream").BY_STREAM[stream]
    encode = shipped()[STREAMS[stream]].encode
    return {
        identity: encode(resource.transform(dict(state))) for identity, state in provider.ledger.current(stream).items()
    }


@dataclass
class Book:
    """Records as a store keeps them, by the store's own decision."""

    known: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    payloads: dict = field(default_factory=dict)
    outcomes: list = field(default_factory=list)

    def take(self, emitted):
        for emission in emitted:
            place = (emission.stream, emission.source_id)
            outcome = decide(emission, self.known.get(place), self.keys.get(emission.key))
            self.outcomes.append(outcome)
            if emission.key is not None:
                self.keys[emission.key] = Content(hash=emission.hash, deleted=emission.deleted)
            if outcome in (Outcome.CREATED, Outcome.UPDATED, Outcome.DELETED):
                self.payloads[place] = emission.payload
                self.known[place] = Known(
                    source_id=emission.source_id, sequence=1, latest=1, version=1, hash=emission.hash.hex(),
                    as_of=emission.as_of, deleted=int(emission.deleted), by_object=int(emission.key is None),
                )  # fmt: skip

    def live(self, stream):
        return {
            identity: self.payloads[of, identity]
            for (of, identity), known in self.known.items()
            if of == stream and not known.deleted
        }

    def buried(self, stream):
        return {identity for (of, identity), known in self.known.items() if of == stream and known.deleted}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_first_run_reads_everything(provider, stream):
    seed_account(provider, customers=45)
    results, cursor = run(provider, stream, limit=20)
    found = emissions(results)
    assert {emission.source_id: emission.payload for emission in found} == expected(provider, stream)
    assert {emission.type for emission in found} == {STREAMS[stream]}
    assert all(emission.key is None for emission in found), "the key names the object"
    assert "since" in json.loads(cursor)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_stream_has_the_same_bytes_by_every_way(provider, stream):
    _, cursor = run(provider, stream)
    provider.clock.pass_time(120)
    live(provider)
    by_list = {emission.source_id: emission.payload for emission in emissions(run(provider, stream)[0])}
    assert by_list
    by_webhook, by_events = {}, {}
    for event in provider.ledger.current("events").values():
        for emission in send(provider, event).emissions:
            if emission.stream == stream and not emission.deleted:
                by_webhook[emission.source_id] = emission.payload
    for emission in emissions(run(provider, stream, cursor)[0]):
        if not emission.deleted:
            by_events[emission.source_id] = emission.payload
    if stream == "balance_transactions":
        assert not by_webhook, "no event tells of one"
    else:
        assert {identity: by_webhook[identity] for identity in by_list} == by_list
    assert {identity: by_events[identity] for identity in by_list} == by_list


@pytest.mark.parametrize("stream", [stream for stream in STREAMS if stream != "balance_transactions"])
def test_an_event_seen_by_both_ways_has_one_key(provider, stream):
    _, cursor = run(provider, stream)
    live(provider)
    keys = set()
    for event in provider.ledger.current("events").values():
        keys |= {(one.key, one.hash) for one in send(provider, event).emissions if one.stream == stream}
    by_events = {(one.key, one.hash) for one in emissions(run(provider, stream, cursor)[0]) if one.key is not None}
    assert by_events
    assert by_events == keys


def simulate(seed, *, steps=60, webhooks=True):
    """Life, webhooks that go wrong, an API that goes wrong, and polls between; then a quiet end. Provider and book."""
    clock = RunningClock(seed=seed)
    provider = FakeStripe(seed, clock)
    chance = random.Random(seed)
    seed_account(provider, customers=8)
    book, cursors = Book(), {}

    async def post(url, headers, body):
        arrived.append(body)
        return 200

    arrived = []
    provider.webhooks.post = post
    if webhooks:
        provider.webhooks.register("https://example.com/hook")
    provider.webhooks.faults = WebhookFaults(
        duplicated=0.2, reordered=0.4, late=0.2, lost_response=0.1, dropped=0.3, late_seconds=3000
    )
    provider.faults = Faults(rate_limited=0.03, failed=0.03, reset=0.02, churn=0.2)

    def receive():
        asyncio.run(provider.webhooks.deliver())
        for body in arrived:
            book.take(deliver(PROJECT, body, transport=answering(provider), secrets=SECRETS, clock=clock).emissions)
        arrived.clear()

    def poll(stream):
        results, cursors[stream] = run(provider, stream, cursors.get(stream), limit=chance.choice((3, 10, 100)))
        book.take(emissions(results))

    for _ in range(steps):
        for _ in range(chance.randrange(1, 6)):
            provider.activity.step()
            clock.pass_time(chance.choice((0, 0, 0.2, 0.7, 3, 400)))
        receive()
        if chance.random() < 0.5:
            poll(chance.choice(list(STREAMS)))
    provider.faults, provider.webhooks.faults = Faults(), WebhookFaults()
    clock.pass_time(3 * DAY)
    provider.account.settle_balance()
    while provider.webhooks.waiting:
        receive()
        clock.pass_time(DAY)
    for stream in [*STREAMS, *STREAMS]:
        poll(stream)
    return provider, book, cursors


@pytest.mark.parametrize("seed", range(12))
def test_records_come_to_equal_the_ledger_whatever_goes_wrong(seed):
    provider, book, _ = simulate(seed, webhooks=seed % 3 != 0)
    for stream in STREAMS:
        assert book.live(stream) == expected(provider, stream), stream
        assert book.buried(stream) <= set(provider.ledger.buried(stream)), stream


def test_a_quiet_account_costs_nothing():
    provider, book, cursors = simulate(3, steps=10)
    provider.clock.pass_time(900)
    book.outcomes.clear()
    for stream in STREAMS:
        results, _ = run(provider, stream, cursors[stream])
        book.take(emissions(results))
        assert len(results) == 1
    assert set(book.outcomes) <= {Outcome.DUPLICATE, Outcome.UNCHANGED}


def test_events_of_one_second_are_settled_by_the_order_of_the_list(provider):
    _, cursor = run(provider, "customers")
    identity = provider.account.create_customer({"name": "first"})["id"]
    for name in ("second", "third"):
        provider.account.change("customers", identity, {"name": name})
    events = list(provider.ledger.current("events").values())
    book = Book()
    for event in (events[2], events[0], events[1]):
        book.take(send(provider, event).emissions)
    assert b'"second"' in book.live("customers")[identity], "the last to come is current"
    results, _ = run(provider, "customers", cursor)
    book.take(emissions(results))
    assert book.live("customers") == expected(provider, "customers")
    assert Outcome.STALE not in book.outcomes


def test_a_state_that_returns_is_not_undone_by_what_lay_between(provider):
    _, cursor = run(provider, "customers")
    identity = provider.account.create_customer({"name": "A"})["id"]
    for name in ("B", "A"):
        provider.clock.pass_time(30)
        provider.account.change("customers", identity, {"name": name})
    first, between, last = provider.ledger.current("events").values()
    book = Book()
    for event in (first, last, between):
        book.take(send(provider, event).emissions)
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.live("customers") == expected(provider, "customers")


def test_a_deletion_in_the_second_of_a_change_stays_a_deletion(provider):
    _, cursor = run(provider, "customers")
    identity = provider.account.create_customer({"name": "brief"})["id"]
    provider.account.delete("customers", identity)
    events = list(provider.ledger.current("events").values())
    book = Book()
    for event in reversed(events):
        book.take(send(provider, event).emissions)
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.buried("customers") == {identity}


@pytest.mark.parametrize("count", [99, 100, 101, 250])
def test_a_second_with_more_events_than_a_page_keeps_its_order(provider, count):
    _, cursor = run(provider, "customers")
    provider.clock.pass_time(5)
    identities = [provider.account.create_customer({"name": "0"})["id"] for _ in range(3)]
    for number in range(count):
        provider.account.change("customers", identities[number % 3], {"name": str(number + 1)})
    provider.clock.pass_time(5)
    provider.account.create_customer({"name": "later"})
    book = Book()
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.live("customers") == expected(provider, "customers")
    assert Outcome.STALE not in book.outcomes, "history grows in its order"


def test_a_deletion_that_webhooks_missed_before_the_first_listing_is_found(provider):
    book = Book()
    gone = provider.account.create_customer({"name": "gone"})["id"]
    book.take(send(provider, list(provider.ledger.current("events").values())[-1]).emissions)
    provider.account.delete("customers", gone)
    provider.clock.pass_time(20 * DAY)
    results, cursor = run(provider, "customers")
    book.take(emissions(results))
    assert book.buried("customers") == set()
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.buried("customers") == {gone}


def test_a_late_event_of_a_second_that_was_listed_does_not_undo_a_newer_one(provider):
    book = Book()
    identity = provider.account.create_customer({"name": "first"})["id"]
    provider.account.change("customers", identity, {"name": "second"})
    first, second = provider.ledger.current("events").values()
    book.take(send(provider, second).emissions)
    provider.clock.pass_time(DAY)
    results, cursor = run(provider, "customers")
    book.take(emissions(results))
    book.take(send(provider, first).emissions)
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.live("customers") == expected(provider, "customers")


def test_an_update_during_the_first_listing_is_not_missed(provider):
    for number in range(6):
        provider.account.create_customer({"name": str(number)})
        provider.clock.pass_time(10)
    book = Book()
    first = ask(provider, "customers", limit=2)
    book.take(first.emissions)
    listed = first.emissions[0].source_id
    provider.clock.pass_time(0.2)
    provider.account.change("customers", listed, {"name": "changed behind the list"})
    results, cursor = run(provider, "customers", first.page.cursor, limit=2)
    book.take(emissions(results))
    book.take(emissions(run(provider, "customers", cursor)[0]))
    assert book.live("customers") == expected(provider, "customers")


def test_a_listing_goes_on_when_the_object_it_stood_at_is_deleted(provider):
    made = []
    for _ in range(6):
        made.append(provider.account.create_customer({})["id"])
        provider.clock.pass_time(10)
    first = ask(provider, "customers", limit=2)
    provider.account.delete("customers", first.emissions[-1].source_id)
    rest = emissions(run(provider, "customers", first.page.cursor, limit=2)[0])
    assert [emission.source_id for emission in rest if emission.key is None] == made[3::-1]


def test_after_thirty_days_of_silence_everything_is_listed_again(provider):
    live(provider, steps=40)
    _, cursor = run(provider, "customers")
    provider.account.create_customer({"name": "while nobody looked"})
    provider.clock.pass_time(31 * DAY)
    results, again = run(provider, "customers", cursor)
    assert "/v1/customers" in results[0].requests[0].url
    assert {one.source_id for one in emissions(results)} == set(provider.ledger.current("customers"))
    provider.clock.pass_time(60)
    assert "/v1/events" in run(provider, "customers", again)[0][0].requests[0].url


@pytest.mark.parametrize("stream", STREAMS)
def test_a_backfill_reads_what_was_created_in_its_window(provider, stream):
    seed_account(provider, customers=60)
    now = provider.clock.now()
    found, edges = [], [now - timedelta(days=days, seconds=0.5) for days in (420, 200, 100, 50, 0)]
    for start, end in pairwise(edges):
        results, _ = run(provider, stream, window=Window(start, end), limit=7)
        inside = [emission.source_id for emission in emissions(results)]
        for identity in inside:
            assert start <= datetime.fromtimestamp(provider.ledger.get(stream, identity)["created"], UTC) < end
        found += inside
    assert sorted(found) == sorted(provider.ledger.current(stream))


def test_pending_balance_transactions_are_looked_at_again_once_a_day(provider):
    book = Book()
    provider.account.create_charge({"amount": 1000, "currency": "usd"})
    results, cursor = run(provider, "balance_transactions")
    book.take(emissions(results))
    provider.clock.pass_time(2 * DAY)
    provider.account.settle_balance()
    provider.account.create_charge({"amount": 2000, "currency": "usd"})
    for _ in range(3):
        provider.clock.pass_time(900)
        results, cursor = run(provider, "balance_transactions", cursor)
        book.take(emissions(results))
    assert book.live("balance_transactions") == expected(provider, "balance_transactions")
    provider.clock.pass_time(3 * DAY)
    provider.account.settle_balance()
    results, cursor = run(provider, "balance_transactions", cursor)
    book.take(emissions(results))
    assert book.live("balance_transactions") == expected(provider, "balance_transactions")
    assert "pending" not in json.loads(cursor)


def test_a_providers_clock_behind_ours_dates_what_is_listed(provider):
    seed_account(provider, customers=2)
    said_at = provider.clock.now() - timedelta(seconds=90)
    app = provider.__call__

    async def dated(scope, receive, send):
        async def send_dated(message):
            if message["type"] == "http.response.start":
                message["headers"].append((b"date", said_at.strftime("%a, %d %b %Y %H:%M:%S GMT").encode()))
            await send(message)

        await app(scope, receive, send_dated)

    result = drive(PROJECT, "customers", transport=answering(dated), secrets=SECRETS, clock=provider.clock)
    as_of = int((said_at - timedelta(seconds=1)).timestamp())
    assert {emission.as_of for emission in result.emissions} == {as_of * 1_000_000}
    assert json.loads(result.page.cursor)["next"] == as_of - 60 - 4 * DAY
