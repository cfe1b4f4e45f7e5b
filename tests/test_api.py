"""The HTTP API over a real store: what it tells, whom it tells it, and how it refuses."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from headwater.api import changes as changes_module
from headwater.api import routes as api
from headwater.api.access import api_key_hash, key_guard, loopback_guard, new_api_key, open_guard
from headwater.api.problem import ProblemError
from headwater.clock import to_micros
from headwater.errors import CredentialsError, ProviderError, StoreUnavailableError, UsageError
from headwater.log_line import NewLogLine
from headwater.record import Quarantined
from headwater.run import Window
from headwater.runtime import OnePage
from headwater.stores.sqlite import records as stored_records
from headwater.testing.clock import FakeClock
from stored import begin, connect, deliver, dispatch, emit, fail, ingest, open_store, webhook
from stream_states import NOON

BIG = 123456789012345678901234567890


@dataclass
class World:
    """A store, its API, and a client that holds a key."""

    store: object
    clock: FakeClock
    client: httpx.AsyncClient
    pages: object

    async def get(self, path, expect=200, key=None, **query):
        return await self.call("GET", path, expect, key, params=query)

    async def post(self, path, body=None, expect=200, key=None, **query):
        return await self.call("POST", path, expect, key, params=query, json=body)

    async def call(self, method, path, expect, key=None, **more):
        headers = {"authorization": f"Bearer {key}"} if key else None
        answer = await self.client.request(method, f"/api/v1{path}", headers=headers, **more)
        assert answer.status_code == expect, answer.text
        if expect >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == expect
        return answer.json()


class FakePages:
    """The runtime, as the sync route calls it."""

    def __init__(self):
        self.calls = []
        self.result = OnePage(stream="customers", imported=3, unchanged=1, failed=0, cursor="c9", has_more=True)

    async def __call__(self, connection, stream, **given):
        self.calls.append((connection, stream, given))
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


async def make_key(store, clock, *, scopes=("read", "payloads", "operate"), tenant=None, expires_at=None):
    key = new_api_key()
    await store.add_api_key(
        name="test", hash=api_key_hash(key), scopes=scopes, tenant=tenant, at=clock.now(), expires_at=expires_at
    )
    return key


@asynccontextmanager
async def open_world(*, local=False, base_url="http://127.0.0.1"):
    clock, pages = FakeClock(NOON), FakePages()
    async with open_store(clock=clock) as store:
        guard = key_guard(store, clock)
        guard = loopback_guard(guard) if local else guard
        app = Starlette(routes=api.routes(store=store, clock=clock, guard=guard, one_page=pages))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        headers = {} if local else {"authorization": f"Bearer {await make_key(store, clock)}"}
        async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers) as client:
            yield World(store, clock, client, pages)


def run(story, **given):
    async def main():
        async with open_world(**given) as world:
            await story(world)

    asyncio.run(main())


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


def test_nobody_without_a_known_key_gets_in():
    async def story(world):
        expired = await make_key(world.store, world.clock, expires_at=world.clock.now() + timedelta(seconds=1))
        await world.get("/streams", key=expired)
        await world.clock.advance(2)
        for key in (new_api_key(), "hw_x", "nonsense", "hw_" + "x" * 10_000, expired):
            problem = await world.get("/streams", 401, key=key)
            assert problem["code"] == "request.unauthorized"
        answer = await world.client.get("/api/v1/streams", headers={"authorization": "Basic aHc6aHc="})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")

    run(story)


def test_a_key_does_only_what_its_scopes_say():
    async def story(world):
        await connect(world.store, world.clock)
        reads = await make_key(world.store, world.clock, scopes=["read"])
        operates = await make_key(world.store, world.clock, scopes=["operate"])
        await world.get("/streams", key=reads)
        assert (await world.post("/connections/acme/pause", expect=403, key=reads))["code"] == "request.scope"
        await world.get("/streams", 403, key=operates)
        await world.post("/connections/acme/pause", key=operates)
        assert (await world.get("/consumers/mine", key=reads))["position"] == 0

    run(story)


def test_nothing_crosses_from_one_tenant_to_another():
    """Invariant 10, as seen through every route."""

    async def story(world):
        store, clock = world.store, world.clock
        for key, tenant in (("n1", "north"), ("n2", "north"), ("s1", "south"), ("free", None)):
            stored = await connect(store, clock, key, tenant=tenant, streams=["customers", webhook()])
            await ingest(store, clock, emit(f"{key}-a", clock), connection=key)
            await store.reject_delivery(stored.id, reason=f"bad {key}", at=clock.now(), sample="")
            await deliver(store, clock, stored, f"evt_{key}")
            (state,) = await store.streams(at=clock.now(), connection=key, stream="customers")
            span = Window(NOON - timedelta(days=1), NOON)
            await store.add_backfill(state.id, span=span, windows=[span], at=clock.now())
        north = await make_key(store, clock, tenant="north")
        lists = [
            "/streams",
            "/connections",
            "/runs",
            "/deliveries",
            "/rejections",
            "/backfills",
            "/records",
            "/changes",
        ]
        for path in lists:
            found = (await world.get(path, key=north))["data"]
            keys = {one.get("connection") or one.get("key") for one in found}
            assert keys == {"n1", "n2"}, path
            if path != "/connections":
                narrowed = (await world.get(path, key=north, connection="n2"))["data"]
                assert {one["connection"] for one in narrowed} == {"n2"}, path
                await world.get(path, 404, key=north, connection="s1")
                await world.get(path, 404, key=north, connection="nobody")
        assert (await world.get("/streams", key=north, tenant="south"))["data"] == []
        await world.get("/changes", 404, key=north, tenant="south")

        for connection in ("s1", "free"):
            (run_,) = await store.runs(connection=connection)
            (backfill,) = await store.backfills(connection=connection)
            deliveries = (await world.get("/deliveries", connection=connection))["data"]
            for path in (
                f"/runs/{run_.id}",
                f"/backfills/{backfill.id}",
                f"/deliveries/{deliveries[0]['id']}",
                f"/records/{connection}/customer/{connection}-a",
                f"/versions/{connection}/customer/{connection}-a",
                f"/connections/{connection}/streams/customers",
            ):
                await world.get(path, key=None)
                hidden = await world.get(path, 404, key=north)
                assert connection not in hidden["detail"]
            for path in (
                f"/connections/{connection}/pause",
                f"/connections/{connection}/resume",
                f"/connections/{connection}/streams/customers/runs",
                f"/connections/{connection}/streams/customers/pause",
                f"/connections/{connection}/sync/customers",
                f"/deliveries/{deliveries[0]['id']}/replay",
            ):
                await world.post(path, expect=404, key=north)
            await world.post("/deliveries/replay", {"connection": connection}, 404, key=north)
            ids = [deliveries[0]["id"]]
            assert (await world.post("/deliveries/replay", {"ids": ids}, key=north))["matched"] == 0
        matched = await world.post("/deliveries/replay", {"state": "pending", "dry_run": True}, key=north)
        assert matched["matched"] == 2

    run(story)


def test_a_tenants_lists_are_paged_over_its_connections():
    async def story(world):
        for key in ("a1", "b1", "c1"):
            await connect(world.store, world.clock, key, tenant="north" if key != "b1" else "south")
        for round_ in range(3):
            for key in ("c1", "b1", "a1"):
                await ingest(world.store, world.clock, emit(f"{key}-{round_}", world.clock), connection=key)
        north = await make_key(world.store, world.clock, tenant="north")
        for path in ("/runs", "/records"):
            found, query = [], {}
            while query is not None:
                page = await world.get(path, key=north, limit=2, **query)
                found += page["data"]
                query = {"after": page["next_cursor"]} if page["next_cursor"] else None
            assert len(found) == 6
            assert {one["connection"] for one in found} == {"a1", "c1"}
            if path == "/runs":
                assert [one["id"] for one in found] == sorted((one["id"] for one in found), reverse=True)
            else:
                assert [one["id"] for one in found] == [f"{key}-{n}" for key in ("a1", "c1") for n in range(3)]

    run(story)


def test_every_refusal_is_a_problem_document():
    async def story(world):
        assert (await world.get("/nowhere", 404))["detail"] == "There is nothing at this path."
        problem = await world.call("DELETE", "/streams", 405)
        assert problem["type"] == "urn:headwater:error:request.method_not_allowed"
        problem = await world.get("/runs", 400, limit="many", stat="failed", state="faild")
        assert problem["errors"] == [
            "`state` is not `faild`: did you mean `failed`?",
            "`limit` is no whole number from 1 to 1000.",
            "There is no parameter `stat`: did you mean `state`?",
        ]
        await world.get("/runs", 400, after="9" * 30)
        await world.get("/records", 400, after="[1]")
        await world.get("/deliveries", 400, **{"from": "2026-03-01T00:00:00"})
        await world.get("/runs", 414, connection="x" * 9000)

    run(story)


def test_a_body_that_is_too_large_or_no_json_is_refused():
    async def story(world):
        path = "/deliveries/replay"
        big = b'{"event_type":"' + b"x" * 300_000 + b'"}'
        json = {"content-type": "application/json"}
        for body, expect in ((big, 413), (b"{", 400), (b'{"ids":[' + b"[" * 50_000, 400), (b"[]", 400), (b"\xff", 400)):
            answer = await world.client.post(f"/api/v1{path}", content=body, headers=json)
            assert answer.status_code == expect
            assert answer.headers["content-type"] == "application/problem+json"
        answer = await world.client.post(f"/api/v1{path}", content=b"{}", headers={"content-type": "text/plain"})
        assert answer.status_code == 415

    run(story)


def test_this_machine_needs_no_key_but_another_sites_page_gets_nothing_done():
    async def story(world):
        await connect(world.store, world.clock)
        await world.get("/streams")
        await world.post("/connections/acme/pause")
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            answer = await world.client.post("/api/v1/connections/acme/resume", headers=headers)
            assert answer.status_code == 403
        same = {"origin": "http://127.0.0.1", "sec-fetch-site": "same-origin"}
        assert (await world.client.post("/api/v1/connections/acme/resume", headers=same)).status_code == 200
        await world.get("/streams", 401, key="hw_unknown")

    run(story, local=True)


def test_an_open_door_is_still_closed_to_other_sites():
    def request(method, **headers):
        raw = [(name.encode(), value.encode()) for name, value in {"host": "ops.example", **headers}.items()]
        return Request({"type": "http", "method": method, "path": "/", "headers": raw, "query_string": b""})

    async def main():
        guard = open_guard(scopes=["read"])
        assert (await guard(request("GET", origin="https://evil.example"))).scopes == {"read"}
        assert (await guard(request("POST", origin="http://ops.example"))).tenant is None
        with pytest.raises(ProblemError):
            await guard(request("POST", origin="https://evil.example"))

    asyncio.run(main())


def test_a_rebound_host_name_is_not_this_machine():
    async def story(world):
        await world.get("/streams", 401)

    run(story, local=True, base_url="http://evil.example")


def test_a_stored_key_cannot_be_read_back():
    key = new_api_key()
    assert key.startswith("hw_")
    assert len(key) > 40
    assert key != new_api_key()
    assert len(api_key_hash(key)) == 32


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
