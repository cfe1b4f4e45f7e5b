"""Whom the HTTP API answers: keys, scopes, tenants, this machine; and how it refuses."""

import asyncio
from datetime import timedelta

import pytest
from starlette.requests import Request

from api_world import make_key, run
from headwater.api.access import api_key_hash, new_api_key, open_guard
from headwater.api.problem import ProblemError
from headwater.run import Window
from stored import connect, deliver, emit, ingest, webhook
from stream_states import NOON


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
