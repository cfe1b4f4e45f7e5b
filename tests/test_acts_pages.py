"""Acts by page and by the API: the plan that is shown, the button that does just that, and who has none."""

import asyncio
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette

from desk import THIS, at_a_desk
from headwater.acts.deliveries import CancelReplay
from headwater.acts.registry import ACTS
from headwater.api import routes as api
from headwater.api.access import Caller
from headwater.dashboard import views
from stored import deliver, dispatch, emit, ingest
from stream_states import NOON


@asynccontextmanager
async def browsing(*, scopes=("read", "operate"), tenant=None):
    async with at_a_desk() as (desk, acme):
        caller = Caller(name="ada", scopes=frozenset(scopes), tenant=tenant)

        async def guard(_):
            return caller

        words = {"store": desk.store, "clock": desk.clock, "guard": guard}
        app = Starlette(routes=[*api.routes(**words), *views.routes(**words)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            yield desk, acme, client


def test_a_page_shows_the_plan_and_its_button_does_just_that():
    async def main():
        async with browsing() as (desk, acme, client):
            for name in ("one", "two"):
                await deliver(desk.store, desk.clock, acme, name)
                await dispatch(desk.store, desk.clock, dead=True)
            listed = (await client.get("/deliveries?state=dead")).text
            assert 'href="/acts/deliveries.replay?state=dead"' in listed
            assert 'name="ids" value="2"' in listed
            page = (await client.get("/acts/deliveries.replay?state=dead")).text
            assert "2 deliveries are dispatched again." in page
            assert 'name="expected" value="2"' in page
            assert "headwater deliveries replay --state dead --yes" in page
            assert "1 delivery is" in (await client.get("/acts/deliveries.replay?ids=1")).text
            both = (await client.get("/acts/deliveries.replay?ids=1&ids=2")).text
            assert 'name="ids" value="1,2"' in both
            refused = await client.post("/acts/deliveries.replay", data={"state": "dead", "expected": "3"})
            assert refused.status_code == 409
            assert "2 deliveries match now" in refused.text
            assert 'name="expected" value="2"' in refused.text, "the page shows what there is now"
            assert (await desk.store.delivery(1)).state == "dead"
            done = await client.post("/acts/deliveries.replay", data={"state": "dead", "expected": "2"})
            assert (done.status_code, done.headers["location"]) == (
                303,
                "/deliveries?replayed_at=2026-03-10T12%3A00%3A00%2B00%3A00",
            )
            assert (await desk.store.delivery(1)).state == "pending"

    asyncio.run(main())


def test_a_button_acts_at_once_and_leads_back():
    async def main():
        async with browsing() as (_, _, client):
            page = (await client.get("/connections/acme/streams/customers")).text
            assert 'action="/acts/streams.pause"' in page
            answer = await client.post("/acts/streams.pause", data=THIS)
            assert answer.headers["location"] == "/connections/acme/streams/customers"
            assert 'action="/acts/streams.resume"' in (await client.get(answer.headers["location"])).text
            events = (await client.get("/connections/acme/streams/events")).text
            assert "/acts/runs.trigger" not in events
            started = await client.post("/acts/runs.trigger?format=json", data=THIS)
            assert started.json()["value"]["run_id"] == 1
            assert 'href="/acts/runs.cancel?run=1"' in (await client.get("/runs/1")).text

    asyncio.run(main())


def test_a_form_that_is_not_complete_says_so_at_its_fields():
    async def main():
        async with browsing() as (_, _, client):
            first = await client.get("/acts/backfills.start?connection=acme&stream=customers")
            assert first.status_code == 200
            assert "aria-invalid" not in first.text, "nobody was asked yet"
            wrong = (await client.get("/acts/backfills.start?connection=acme&stream=customers&start=soon")).text
            assert "aria-invalid" in wrong
            assert 'value="soon"' in wrong, "what was typed stays"
            unknown = await client.get("/acts/backfills.start?connection=acme&stream=customers&start=2026-01-01")
            assert "is not loaded here" in unknown.text
            assert (await client.get("/acts/streams.pause?stream=x")).status_code == 400
            assert (await client.get("/acts/streams.fly")).status_code == 404
            assert (await client.post("/acts/streams.pause", data={"connection": "acme"})).status_code == 400
            assert (await client.get("/acts/streams.pause?connection=acme&stream=nothing")).status_code == 404

    asyncio.run(main())


def test_a_checkpoint_that_was_put_elsewhere_can_be_put_back():
    async def main():
        async with browsing() as (desk, _, client):
            await ingest(desk.store, desk.clock, emit("c1", desk.clock))
            await client.post("/acts/checkpoints.set", data={**THIS, "cursor": "zz"})
            page = (await client.get("/connections/acme/streams/customers")).text
            assert "/acts/checkpoints.set?connection=acme&amp;stream=customers&amp;cursor=c1" in page
            twin = (await client.get("/connections/acme/streams/customers?format=json")).json()
            assert [(one["before"], one["after"], one["actor"]) for one in twin["moves"]] == [("c1", "zz", "ada")]

    asyncio.run(main())


def test_who_may_only_read_sees_no_button_and_does_nothing():
    async def main():
        async with browsing(scopes=("read",)) as (desk, acme, client):
            await deliver(desk.store, desk.clock, acme, "one")
            for page in ("/connections/acme", "/connections/acme/streams/customers", "/deliveries", "/deliveries/1"):
                assert "/acts/" not in (await client.get(page)).text, page
            for name in ACTS:
                assert (await client.get(f"/acts/{name}")).status_code == 403
                assert (await client.post(f"/acts/{name}", data=THIS)).status_code == 403
                assert (await client.post(f"/api/v1/acts/{name}", json=THIS)).status_code == 403
            assert await desk.store.audit_log() == []

    asyncio.run(main())


def test_the_api_tells_plans_and_carries_out_the_same_acts():
    async def main():
        async with browsing() as (desk, _, client):
            listed = (await client.get("/api/v1/acts")).json()
            assert {one["name"] for one in listed["data"]} == set(ACTS)
            assert all(one["schema"] for one in listed["data"])
            plan = (await client.post("/api/v1/acts/runs.trigger/plan", json=THIS)).json()
            assert plan["plan"]["sentence"] == "acme customers runs now, from the beginning."
            assert plan["command"] == "headwater run acme customers"
            assert await desk.store.runs() == []
            done = await client.post("/api/v1/acts/runs.trigger", json=THIS)
            assert done.json()["value"]["run_id"] == 1
            assert done.headers["location"] == "/api/v1/runs/1"
            again = await client.post("/api/v1/acts/runs.trigger", json=THIS)
            assert (again.status_code, again.json()["code"]) == (409, "request.usage")
            assert (await client.post("/api/v1/acts/runs.fly", json={})).status_code == 404
            wrong = await client.post("/api/v1/acts/runs.trigger", json={**THIS, "pages_limit": 0})
            assert (wrong.status_code, wrong.json()["code"]) == (400, "request.body")
            gone = await client.post("/api/v1/acts/streams.pause", json={"connection": "acme", "stream": "nothing"})
            assert gone.status_code == 404
            assert [one.act for one in await desk.store.audit_log()] == ["runs.trigger"]

    asyncio.run(main())


def test_a_replay_is_followed_and_cancelled():
    async def main():
        async with browsing() as (desk, acme, client):
            for name in ("one", "two", "three"):
                await deliver(desk.store, desk.clock, acme, name)
                await dispatch(desk.store, desk.clock, dead=name == "one")
            await client.post("/acts/deliveries.replay", data={"connection": "acme", "expected": "3"})
            followed = "/deliveries?replayed_at=2026-03-10T12:00:00Z"
            await dispatch(desk.store, desk.clock)
            page = (await client.get(followed)).text
            assert "1 of 3 are settled" in page
            assert "/acts/deliveries.cancel?replayed_at=2026-03-10T12%3A00%3A00Z" in page
            plan = (await client.get("/acts/deliveries.cancel?replayed_at=2026-03-10T12:00:00Z")).text
            assert "2 deliveries of this replay wait still." in plan
            done = await client.post("/acts/deliveries.cancel", data={"replayed_at": "2026-03-10T12:00:00Z"})
            assert "3 of 3 are settled" in (await client.get(done.headers["location"])).text
            assert (await client.get(followed + "&format=json")).json()["replay"] == {
                "pending": 0,
                "done": 3,
                "dead": 0,
            }
            assert not (await CancelReplay(replayed_at=NOON).plan(desk)).is_possible

    asyncio.run(main())
