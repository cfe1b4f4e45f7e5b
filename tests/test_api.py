"""The HTTP API over a real store: what it tells and does."""

import asyncio
from datetime import timedelta
from decimal import Decimal

import pytest

from api_world import BIG, make_key, run
from headwater.api import changes as changes_module
from headwater.clock import to_micros
from headwater.errors import CredentialsError, ProviderError, StoreUnavailableError, UsageError
from headwater.log_line import NewLogLine
from headwater.record import Quarantined
from headwater.run import Window
from headwater.stores.sqlite import records as stored_records
from stored import begin, connect, deliver, dispatch, emit, fail, ingest, webhook
from stream_states import NOON


def test_streams_carry_their_verdict_in_words():
    async def story(world):
        await connect(world.store, world.clock, streams=["customers", webhook()])
        await ingest(world.store, world.clock, emit("c1", world.clock))
        await world.clock.advance(60)
        answer = await world.get("/streams")
        customers, events = answer["data"]
        assert (customers["stream"], customers["status"]) == ("customers", "fresh")
        assert customers["sentence"] == "Fresh: last success 12:00, next 12:15."
        assert customers["cadence"] == "every 15 minutes"
        assert customers["last_success_at"] == "2026-03-10T12:00:00Z"
        assert customers["counts_24h"]["created"] == 1
        assert events["sentence"] == "Never ran: no delivery yet."
        assert answer["statuses"] == {"never ran": 1, "fresh": 1}
        fresh = await world.get("/streams", status="fresh")
        assert [one["stream"] for one in fresh["data"]] == ["customers"]
        one = await world.get("/connections/acme/streams/customers")
        assert one == customers

    run(story)


def test_a_list_goes_on_after_its_cursor():
    async def story(world):
        await connect(world.store, world.clock, streams=["a", "b", "c"])
        for stream in "abc":
            await ingest(world.store, world.clock, emit(f"{stream}1", world.clock, stream=stream), stream=stream)
        for path, name in (("/streams", "stream"), ("/runs", "stream"), ("/records", "id")):
            whole = [one[name] for one in (await world.get(path))["data"]]
            found, query = [], {}
            while True:
                page = await world.get(path, limit=2, **query)
                found += [one[name] for one in page["data"]]
                if page["next_cursor"] is None:
                    break
                query = {"after": page["next_cursor"]}
            assert found == whole
            assert len(found) == 3

    run(story)


def test_connections_are_summed_up_in_a_sentence():
    async def story(world):
        stored = await connect(world.store, world.clock, streams=["customers"])
        await world.store.pause_connection(
            stored.id, reason="The provider refuses the key.", needs_attention=True, at=world.clock.now()
        )
        (one,) = (await world.get("/connections"))["data"]
        assert one["summary"] == "Stripe (acme) ingests 1 stream: 1 needs attention."
        assert (one["needs_attention"], one["paused_reason"]) == (True, "The provider refuses the key.")
        assert "settings" not in one
        assert "endpoint_id" not in one

    run(story)


def test_a_run_shows_its_pages_and_a_list_hides_tracebacks():
    async def story(world):
        await connect(world.store, world.clock)
        run_id = await ingest(world.store, world.clock, emit("c1", world.clock))
        failed_id = await fail(world.store, world.clock)
        assert [one["id"] for one in (await world.get("/runs"))["data"]] == [failed_id, run_id]
        (failed,) = (await world.get("/runs", state="failed"))["data"]
        assert failed["traceback"] is None
        assert (await world.get(f"/runs/{failed_id}"))["traceback"] == "Traceback …"
        found = await world.get(f"/runs/{run_id}")
        assert found["page_list"][0]["counts"]["created"] == 1
        assert found["requests"] == []
        await world.get("/runs/99", 404)

    run(story)


def test_records_keep_every_digit_and_their_history():
    async def story(world):
        await connect(world.store, world.clock)
        await ingest(world.store, world.clock, emit("c/1", world.clock, balance=Decimal("0.10"), big=BIG))
        await world.clock.advance(1)
        await ingest(world.store, world.clock, emit("c/1", world.clock, balance=Decimal("10.00"), big=BIG))
        answer = await world.client.get("/api/v1/records/acme/customer/c%2F1")
        assert b'"data":{"balance":"10.00","big":123456789012345678901234567890,"id":"c/1"}' in answer.content
        assert answer.json()["version"] == 2
        history = (await world.get("/versions/acme/customer/c/1"))["data"]
        assert [(one["version"], one["data"]["balance"]) for one in history] == [(2, "10.00"), (1, "0.10")]
        await world.get("/records/acme/customer/none", 404)
        await world.get("/records/nobody/customer/c/1", 404)

    run(story)


def test_listing_all_records_and_then_the_changes_leaves_no_gap():
    async def story(world):
        await connect(world.store, world.clock)
        await ingest(world.store, world.clock, emit("a", world.clock), emit("c", world.clock))
        first = await world.get("/records", limit=1)
        await world.clock.advance(1)
        await ingest(world.store, world.clock, emit("a", world.clock, name="late"), emit("b", world.clock))
        second = await world.get("/records", after=first["next_cursor"])
        feed = await world.get("/changes", after=first["position"])
        found = {one["id"]: one["version"] for part in (first, second, feed) for one in part["data"]}
        assert found == {"a": 2, "b": 1, "c": 1}

    run(story)


def test_the_change_feed_is_resumed_by_its_position_and_shows_deletions():
    async def story(world):
        await connect(world.store, world.clock)
        run_id = await ingest(world.store, world.clock, emit("a", world.clock, name="Ada"), emit("b", world.clock))
        await world.clock.advance(1)
        await ingest(world.store, world.clock, emit("a", world.clock, deleted=True))
        first = await world.get("/changes", limit=2)
        (one, _) = first["data"]
        assert one["data"] == {"id": "a", "name": "Ada"}
        assert (one["op"], one["origin"], one["connector"], one["run_id"]) == ("upsert", "poll", "stripe", run_id)
        assert (one["connection"], one["stream"], one["type"], one["id"]) == ("acme", "customers", "customer", "a")
        second = await world.get("/changes", after=first["position"])
        assert [(one["id"], one["op"], one["version"], one["data"]) for one in second["data"]] == [
            ("a", "delete", 2, None)
        ]
        assert second["position"] == second["high_water"]
        assert (await world.get("/changes", after=second["position"]))["data"] == []
        problem = await world.get("/changes", 409, after=second["position"] + 1)
        assert problem["code"] == "request.position"

    run(story)


def test_the_change_feed_waits_for_what_comes():
    async def story(world):
        await connect(world.store, world.clock)
        waiting = asyncio.create_task(world.get("/changes", wait=30))
        while not world.clock.sleepers:
            await asyncio.sleep(0)
        assert not waiting.done()
        await ingest(world.store, world.clock, emit("a", world.clock))
        assert [one["id"] for one in (await waiting)["data"]] == ["a"]

    run(story)


def test_the_change_feed_answers_empty_when_the_time_is_over():
    async def story(world):
        waiting = asyncio.create_task(world.get("/changes", wait=30))
        while not world.clock.sleepers:
            await asyncio.sleep(0)
        await world.clock.advance(30)
        assert (await waiting) == {"data": [], "position": 0, "high_water": 0}

    run(story)


def test_too_many_waiting_callers_are_told_to_come_back(monkeypatch):
    monkeypatch.setattr(changes_module, "WAITING_MAX", 1)

    async def story(world):
        waiting = asyncio.create_task(world.get("/changes", wait=30))
        while not world.clock.sleepers:
            await asyncio.sleep(0)
        answer = await world.client.get("/api/v1/changes", params={"wait": 30})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
        await world.get("/changes")
        await world.clock.advance(30)
        await waiting

    run(story)


def test_a_long_stretch_that_the_filter_hides_is_read_through(monkeypatch):
    monkeypatch.setattr(stored_records, "FEED_SCAN_MAX", 3)

    async def story(world):
        await connect(world.store, world.clock)
        await connect(world.store, world.clock, "other")
        await ingest(world.store, world.clock, *[emit(f"c{n}", world.clock) for n in range(10)])
        await ingest(world.store, world.clock, emit("o1", world.clock), connection="other")
        found = await world.get("/changes", connection="other")
        assert [one["id"] for one in found["data"]] == ["o1"]
        assert found["position"] == found["high_water"]

    run(story)


def test_a_named_consumer_goes_on_where_it_left_off():
    async def story(world):
        await connect(world.store, world.clock)
        await ingest(world.store, world.clock, emit("a", world.clock), emit("b", world.clock))
        first = await world.get("/changes", consumer="warehouse", limit=1)
        assert (await world.post("/consumers/warehouse", {"position": first["position"]}))["lag"] == 1
        second = await world.get("/changes", consumer="warehouse")
        assert [one["id"] for one in second["data"]] == ["b"]
        await world.post("/consumers/warehouse", {"position": 99}, 409)
        await world.post("/consumers/warehouse", {"position": -1}, 400)
        tenant = await make_key(world.store, world.clock, tenant="north")
        assert (await world.get("/consumers/warehouse", key=tenant))["position"] == 0

    run(story)


def test_deliveries_are_listed_shown_and_replayed():
    async def story(world):
        stored = await connect(world.store, world.clock, streams=["customers", webhook()])
        done = await deliver(world.store, world.clock, stored, "evt_1", body=b'{"n":1}')
        await dispatch(world.store, world.clock, emit("c1", world.clock, stream="events"))
        dead = await deliver(world.store, world.clock, stored, "evt_2", body=b"\xff")
        await dispatch(world.store, world.clock, dead=True)
        listed = (await world.get("/deliveries"))["data"]
        assert [(one["id"], one["state"]) for one in listed] == [(dead, "dead"), (done, "done")]
        assert "body" not in listed[0]
        shown = await world.get(f"/deliveries/{done}")
        assert (shown["body"], shown["headers"]) == ('{"n":1}', {"content-type": "application/json"})
        assert [one["id"] for one in shown["changes"]] == ["c1"]
        assert (await world.get(f"/deliveries/{dead}"))["body_encoding"] == "base64"
        (stream,) = (await world.get("/streams", connection="acme", status="failing"))["data"]
        assert "1 dead letter to replay" in stream["sentence"]

        counted = await world.post("/deliveries/replay", {"state": "dead", "dry_run": True})
        assert counted == {"matched": 1, "replayed": 0, "dry_run": True}
        await world.post("/deliveries/replay", {"state": "dead", "expected": 2}, 409)
        replayed = await world.post("/deliveries/replay", {"state": "dead", "expected": 1})
        assert replayed["replayed"] == 1
        assert (await world.get(f"/deliveries/{dead}"))["state"] == "pending"
        assert (await world.post(f"/deliveries/{done}/replay"))["replayed"] == 1
        assert [entry.act for entry in await world.store.audit_log()] == ["deliveries.replay"] * 2

    run(story)


def test_a_replay_of_everything_is_refused():
    async def story(world):
        problem = await world.post("/deliveries/replay", {"dry_run": True}, 400)
        assert "every delivery" in problem["detail"]
        problem = await world.post("/deliveries/replay", {"sate": "dead"}, 400)
        assert "sate" in problem["detail"]

    run(story)


def test_rejections_and_quarantine_are_listed():
    async def story(world):
        stored = await connect(world.store, world.clock)
        at = world.clock.now()
        await world.store.reject_delivery(stored.id, reason="bad signature", at=at, sample="{}")
        (refused,) = (await world.get("/rejections"))["data"]
        assert (refused["reason"], refused["count"]) == ("bad signature", 1)
        bad = Quarantined(
            type="customer",
            stream="customers",
            source_id="c1",
            idempotency_key="k",
            payload=b'{"id":1}',
            reason="id is no text",
            as_of=to_micros(at),
        )
        await ingest(world.store, world.clock, emit("c2", world.clock), quarantined=[bad])
        (found,) = (await world.get("/quarantine"))["data"]
        assert (found["reason"], found["source_id"], found["state"]) == ("id is no text", "c1", "waiting")
        assert (await world.get("/quarantine", state="dropped"))["data"] == []

    run(story)


def test_a_backfill_shows_its_interval_map():
    async def story(world):
        await connect(world.store, world.clock)
        (state,) = await world.store.streams(at=world.clock.now())
        days = [NOON - timedelta(days=n) for n in (2, 1, 0)]
        windows = [Window(days[0], days[1]), Window(days[1], days[2])]
        made = await world.store.add_backfill(
            state.id, span=Window(days[0], days[2]), windows=windows, at=world.clock.now()
        )
        (listed,) = (await world.get("/backfills"))["data"]
        assert (listed["id"], listed["windows"]["todo"]) == (made.id, 2)
        shown = await world.get(f"/backfills/{made.id}")
        assert [one["state"] for one in shown["map"]] == ["todo", "todo"]
        assert shown["map"][0]["window"]["start"] == "2026-03-08T12:00:00Z"
        await world.get("/backfills/99", 404)

    run(story)


def test_a_stream_is_triggered_paused_and_resumed():
    async def story(world):
        await connect(world.store, world.clock, streams=["customers", webhook()])
        answer = await world.client.post("/api/v1/connections/acme/streams/customers/runs")
        assert answer.status_code == 202
        run_id = answer.json()["run_id"]
        assert answer.headers["location"] == f"/api/v1/runs/{run_id}"
        assert (await world.get(f"/runs/{run_id}"))["trigger"] == "operator"
        problem = await world.post("/connections/acme/streams/customers/runs", expect=409)
        assert problem["code"] == "request.usage"
        await world.post("/connections/acme/streams/events/runs", expect=409)

        assert (await world.post("/connections/acme/streams/customers/pause"))["status"] == "paused"
        resumed = await world.post("/connections/acme/streams/customers/resume")
        assert (resumed["status"], resumed["next_at"]) == ("never ran", "2026-03-10T12:00:00Z")

        await world.post("/connections/acme/pause", {"reason": "maintenance"})
        assert (await world.get("/connections"))["data"][0]["paused_reason"] == "maintenance"
        await world.post("/connections/acme/resume")
        assert (await world.get("/connections"))["data"][0]["paused_reason"] is None
        acts = [(entry.act, entry.target, entry.actor) for entry in await world.store.audit_log()]
        assert acts == [
            ("connections.resume", "acme", "test"),
            ("connections.pause", "acme", "test"),
            ("streams.resume", "acme customers", "test"),
            ("streams.pause", "acme customers", "test"),
            ("runs.trigger", "acme customers", "test"),
        ]

    run(story)


def test_one_page_on_demand_answers_as_the_contract_says():
    async def story(world):
        await connect(world.store, world.clock)
        answer = await world.post(
            "/connections/acme/sync/customers",
            cursor="c1",
            limit=50,
            **{"from": "2026-03-01", "to": "2026-03-02T00:00:00+01:00"},
        )
        assert answer == {
            "stream": "customers", "imported": 3, "unchanged": 1, "failed": 0, "cursor": "c9", "hasMore": True,
        }  # fmt: skip
        ((connection, stream, given),) = world.pages.calls
        assert (connection, stream, given["cursor"], given["limit"]) == ("acme", "customers", "c1", 50)
        assert given["window"].start.isoformat() == "2026-03-01T00:00:00+00:00"
        assert given["window"].end.isoformat() == "2026-03-01T23:00:00+00:00"
        await world.post("/connections/acme/sync/customers", expect=400, to="2026-03-02")
        await world.post("/connections/nobody/sync/customers", expect=404)

    run(story)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ProviderError("The provider answered 503.", retry_after_seconds=7.2), 502),
        (CredentialsError(), 409),
        (UsageError("A run is under way."), 409),
        (StoreUnavailableError(), 503),
        (RuntimeError("secret detail"), 500),
    ],
)
def test_a_page_that_fails_is_a_problem_of_its_class(error, status):
    async def story(world):
        await connect(world.store, world.clock)
        world.pages.result = error
        answer = await world.client.post("/api/v1/connections/acme/sync/customers")
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "secret detail" not in answer.text
        if status == 502:
            assert answer.headers["retry-after"] == "8"

    run(story)


def test_a_first_run_under_way_is_told():
    async def story(world):
        await connect(world.store, world.clock)
        await begin(world.store, world.clock)
        one = await world.get("/connections/acme/streams/customers")
        assert (one["run_state"], one["status"]) == ("running", "never ran")
        assert one["sentence"] == "Never ran: the first run is under way."

    run(story)


def test_what_routes_logged_is_listed_and_parted_by_tenant():
    async def story(world):
        north = await make_key(world.store, world.clock, tenant="north")
        for connection, tenant in (("acme", "north"), ("other", "south")):
            await connect(world.store, world.clock, connection, tenant=tenant)
            said = [NewLogLine(at=world.clock.now(), level="warning", message=f"{connection} {n}") for n in range(2)]
            run_id = await ingest(world.store, world.clock, connection=connection, log=said)
        everything = await world.get("/logs")
        assert [one["message"] for one in everything["data"]] == ["other 1", "other 0", "acme 1", "acme 0"]
        assert everything["data"][0] | {"at": None} == {
            "id": 4, "connection": "other", "stream": "customers", "partition": "", "run_id": run_id,
            "delivery_id": None, "at": None, "level": "warning", "message": "other 1",
        }  # fmt: skip
        first = await world.get("/logs", limit=3)
        rest = await world.get("/logs", after=first["next_cursor"])
        assert [one["message"] for one in rest["data"]] == ["acme 0"]
        assert [one["message"] for one in (await world.get("/logs", run_id=run_id))["data"]] == ["other 1", "other 0"]
        assert (await world.get("/logs", level="error"))["data"] == []
        assert [one["message"] for one in (await world.get(f"/runs/{run_id}"))["log"]] == ["other 0", "other 1"]
        seen = await world.get("/logs", key=north)
        assert {one["connection"] for one in seen["data"]} == {"acme"}
        await world.get("/logs", key=north, connection="other", expect=404)
        assert (await world.get("/logs", key=north, run_id=run_id))["data"] == []
        await world.get("/logs", level="loud", expect=400)

    run(story)
