"""The metrics as Prometheus reads them, and the probes."""

import asyncio
from datetime import timedelta

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from headwater import metrics
from headwater.api.access import Caller, key_guard
from headwater.errors import StoreUnavailableError
from headwater.testing.clock import FakeClock
from stored import connect, deliver, dispatch, emit, fail, ingest, open_store, webhook
from stream_states import NOON


async def everybody(_):
    return Caller(name="test", scopes=frozenset({"read"}))


def run(story, *, guard=everybody, probes=()):
    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            given = guard(store, clock) if guard is key_guard else guard
            routes = metrics.routes(store=store, clock=clock, guard=given, version="0.1.0", probes=probes)
            transport = httpx.ASGITransport(Starlette(routes=routes))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await story(store, clock, client)

    asyncio.run(main())


async def scrape(client):
    """Every sample by name and labels, as a Prometheus parser reads it."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.name.startswith(("headwater_", "process_"))
        for sample in family.samples:
            found[sample.name, *sorted(sample.labels.items())] = sample.value
    return found


def labels(stream, **more):
    return sorted(({"connection": "acme", "connector": "stripe", "stream": stream, "partition": ""} | more).items())


def test_each_stream_tells_when_it_succeeded_and_when_it_is_expected():
    async def story(store, clock, client):
        await connect(store, clock, streams=["customers", "invoices"])
        await ingest(store, clock, emit("c1", clock), emit("c2", clock))
        await clock.advance(20 * 60)
        found = await scrape(client)
        success = "headwater_stream_last_success_timestamp_seconds"
        assert found[success, *labels("customers")] == NOON.timestamp()
        assert (success, *labels("invoices")) not in found
        expected = (NOON + timedelta(minutes=15)).timestamp()
        assert found["headwater_stream_expected_next_timestamp_seconds", *labels("customers")] == expected
        assert found["headwater_stream_lag_seconds", *labels("customers")] == 300
        assert found["headwater_stream_missed_ticks", *labels("customers")] == 1
        assert found["headwater_stream_emissions_24h", *labels("customers", outcome="created")] == 2
        assert found["headwater_feed_high_water_sequence",] == 2
        assert found["headwater_build_info", ("version", "0.1.0")] == 1

    run(story)


def test_a_stream_has_exactly_one_status_in_the_words_of_the_page():
    async def story(store, clock, client):
        await connect(store, clock, streams=["customers"])
        await fail(store, clock)
        found = await scrape(client)
        name = "headwater_stream_status"
        words = {dict(key[1:])["status"]: value for key, value in found.items() if key[0] == name}
        assert words == {
            "needs attention": 0, "failing": 1, "late": 0, "on track": 0, "never ran": 0, "paused": 0, "fresh": 0,
        }  # fmt: skip
        assert found["headwater_stream_consecutive_failures", *labels("customers")] == 1

    run(story)


def test_webhook_streams_tell_what_waits_and_what_is_dead():
    async def story(store, clock, client):
        stored = await connect(store, clock, streams=["customers", webhook()])
        await deliver(store, clock, stored, "evt_1")
        await dispatch(store, clock, dead=True)
        await deliver(store, clock, stored, "evt_2")
        await store.reject_delivery(stored.id, reason="bad signature", at=clock.now(), sample="")
        found = await scrape(client)
        assert found["headwater_deliveries_pending", *labels("events")] == 1
        assert found["headwater_deliveries_dead", *labels("events")] == 1
        assert found["headwater_deliveries_24h", *labels("events")] == 2
        assert found["headwater_deliveries_rejected_24h", *labels("events")] == 1
        assert ("headwater_deliveries_dead", *labels("customers")) not in found

    run(story)


def test_label_values_are_escaped():
    async def story(store, clock, client):
        await connect(store, clock, 'a"b\\c\nd')
        found = await scrape(client)
        assert {dict(key[1:])["connection"] for key in found if key[0] == "headwater_stream_runs_24h"} == {'a"b\\c\nd'}

    run(story)


def test_the_metrics_are_behind_the_guard_and_the_probes_are_not():
    async def story(store, clock, client):
        refused = await client.get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await client.get("/livez")).text == "ok\n"
        assert (await client.get("/readyz")).text == "ok\n"

    run(story, guard=key_guard)


def test_a_process_that_is_not_ready_says_why():
    async def schema():
        return "migrations are under way"

    async def story(store, clock, client):
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "migrations are under way\n")
        assert (await client.get("/livez")).status_code == 200

    run(story, probes=[schema])


def test_a_store_that_does_not_answer_is_not_ready(monkeypatch):
    async def story(store, clock, client):
        async def position(sink):
            raise StoreUnavailableError("The disk is full.")

        monkeypatch.setattr(store, "position", position)
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "The disk is full.\n")

    run(story)
