"""The pages of a connection, a stream, a run and a delivery: what they say, to whom, and their twins."""

import asyncio
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from html import escape
from itertools import pairwise

import httpx
from starlette.applications import Starlette

from headwater.api.access import Caller
from headwater.dashboard import views
from headwater.dashboard.runs import CHART_WIDTH, chart, command
from headwater.log_line import NewLogLine
from headwater.record import Counts
from headwater.run import PageRow
from headwater.testing.clock import FakeClock
from stored import connect, deliver, dispatch, emit, fail, ingest, open_store, webhook
from stream_states import NOON, make_run


@asynccontextmanager
async def installation(*, scopes=("read", "payloads", "operate"), tenant=None, is_program=False):
    """A store with two tenants' connections, and a client whose caller has these scopes."""
    clock = FakeClock(NOON)
    caller = Caller(name="ada", scopes=frozenset(scopes), tenant=tenant, is_program=is_program)

    async def guard(_):
        return caller

    async with open_store(clock=clock) as store:
        acme = await connect(store, clock, streams=["customers", webhook()], tenant="one")
        await connect(store, clock, "other", tenant="two")
        routes = views.routes(store=store, clock=clock, guard=guard, connector_names={"stripe": "Stripe"})
        transport = httpx.ASGITransport(Starlette(routes=routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield store, clock, acme, client


def test_a_connection_says_how_its_streams_are():
    async def main():
        async with installation() as (store, clock, _, client):
            await ingest(store, clock, emit("c1", clock))
            page = await client.get("/connections/acme")
            assert "Stripe (acme) ingests 2 streams" in page.text
            assert 'href="/connections/acme/streams/customers"' in page.text
            assert 'href="/connections/acme/runs"' in page.text
            assert 'href="/connections/acme/logs"' in page.text
            twin = (await client.get("/connections/acme?format=json")).json()
            assert twin["summary"] in page.text
            assert {one["stream"] for one in twin["streams"]} == {"customers", "events"}
            table = (await client.get("/connections/acme?format=csv")).text.splitlines()
            assert len(table) == 3

    asyncio.run(main())


def test_a_paused_connection_says_why():
    async def main():
        async with installation() as (store, clock, acme, client):
            await store.pause_connection(acme.id, reason="The <key> was revoked.", needs_attention=True, at=clock.now())
            page = (await client.get("/connections/acme/runs")).text
            assert "Needs attention" in page
            assert "The &lt;key&gt; was revoked." in page

    asyncio.run(main())


def test_a_stream_tells_its_ticks_its_runs_and_its_checkpoint():
    async def main():
        async with installation() as (store, clock, _, client):
            first = await ingest(store, clock, emit("c1", clock))
            await clock.advance(60)
            broken = await fail(store, clock, error="It broke.")
            page = await client.get("/connections/acme/streams/customers")
            twin = (await client.get("/connections/acme/streams/customers?format=json")).json()
            assert twin["health"]["sentence"] in page.text
            assert "<code>c1</code>" in page.text, "the checkpoint"
            assert [one["run"] for one in twin["checkpoints"]] == [first]
            assert [one["state"] for one in twin["runs"]] == ["failed", "succeeded"]
            assert f'href="/runs/{broken}"' in page.text
            assert "every 15 minutes" in page.text
            ticks = [datetime.fromisoformat(one) for one in twin["ticks"]]
            assert [one.minute % 15 for one in ticks] == [0] * 5
            assert ticks[0] > clock.now()
            assert {after - before for before, after in pairwise(ticks)} == {timedelta(minutes=15)}
            assert all(f"{one:%Y-%m-%dT%H:%M}" in page.text for one in ticks)
            assert "<code>*/15 * * * *</code>" in page.text
            events = await client.get("/connections/acme/streams/events")
            assert "deliveries?state=dead" in events.text
            assert "Next ticks" not in events.text
            assert (await client.get("/connections/acme/streams/nothing")).status_code == 404
            assert (await client.get("/connections/acme/streams/customers?partition=x")).status_code == 404

    asyncio.run(main())


def test_a_run_tells_its_pages_its_counts_and_its_error():
    async def main():
        async with installation() as (store, clock, _, client):
            run_id = await ingest(store, clock, emit("c1", clock), emit("c2", clock))
            broken = await fail(store, clock, error="It <b>broke</b>.")
            page = (await client.get(f"/runs/{run_id}")).text
            assert "2 records in 1 page" in page
            assert "headwater run acme customers" in page
            twin = (await client.get(f"/runs/{run_id}?format=json")).json()
            assert [one["counts"]["created"] for one in twin["page_list"]] == [2]
            failed = (await client.get(f"/runs/{broken}")).text
            assert "It &lt;b&gt;broke&lt;/b&gt;." in failed
            assert "Traceback" in failed
            listed = await client.get("/connections/acme/runs?state=failed&format=json")
            assert [one["id"] for one in listed.json()["data"]] == [broken]
            assert "did you mean `failed`?" in (await client.get("/connections/acme/runs?state=faild")).text
            newer = await client.get("/connections/acme/runs?limit=1")
            assert f"after={broken}" in newer.text

    asyncio.run(main())


def test_the_chart_of_a_run_has_each_page_where_it_was():
    def page(number, start, seconds):
        begun = NOON + timedelta(seconds=start)
        return PageRow(
            run_id=1, number=number, cursor=None, has_more=True, counts=Counts(), started_at=begun,
            committed_at=begun + timedelta(seconds=seconds),
        )  # fmt: skip

    bars = chart([page(1, 0, 5), page(2, 5, 15)])
    assert [(bar.x, bar.width) for bar in bars] == [(0.0, CHART_WIDTH / 4), (CHART_WIDTH / 4, CHART_WIDTH * 3 / 4)]
    assert chart([]) == []
    assert chart([page(1, 0, 0)])[0].width == 1.0


def test_a_run_is_told_as_a_command_that_a_shell_takes_as_it_is():
    assert command(make_run(NOON, partition="a b")).endswith(" --partition 'a b'")


def test_deliveries_are_found_by_their_state_and_told_with_their_way():
    async def main():
        async with installation() as (store, clock, acme, client):
            done = await deliver(store, clock, acme, "evt_1", body=b'{"secret":"canary"}')
            await deliver(store, clock, acme, "evt_1")
            await dispatch(store, clock, emit("c1", clock))
            dead = await deliver(store, clock, acme, "evt_2")
            await dispatch(store, clock, dead=True)
            await store.reject_delivery(acme.id, reason="The signature is wrong.", at=clock.now(), sample="canary")
            listed = (await client.get("/deliveries?state=dead&format=json")).json()
            assert [one["id"] for one in listed["data"]] == [dead]
            own = (await client.get("/connections/acme/deliveries")).text
            assert "The signature is wrong." in own
            assert "canary" not in own
            page = (await client.get(f"/deliveries/{done}")).text
            assert "came 1 more time, without effect" in page
            assert "customer c1" in page
            assert "canary" not in page, "a payload is shown to who asks for it"
            broken = (await client.get(f"/deliveries/{dead}")).text
            assert "KeyError: &#39;object&#39;" in broken
            assert f"headwater deliveries replay {dead}" in broken

    asyncio.run(main())


def test_whoever_looks_at_a_payload_is_written_down():
    async def main():
        async with installation() as (store, clock, acme, client):
            found = await deliver(store, clock, acme, "evt_1", body=b'{"secret":"canary"}')
            assert "canary" in (await client.get(f"/deliveries/{found}?reveal=true")).text
            (entry,) = await store.audit_log()
            assert (entry.actor, entry.act, entry.target) == ("ada", "payloads.reveal", f"delivery {found}")
        async with installation(scopes=("read",)) as (store, clock, acme, client):
            found = await deliver(store, clock, acme, "evt_1", body=b'{"secret":"canary"}')
            page = await client.get(f"/deliveries/{found}")
            assert "canary" not in page.text
            assert "reveal=true" not in page.text
            assert (await client.get(f"/deliveries/{found}?reveal=true")).status_code == 403
            assert (await client.get(f"/deliveries/{found}?format=json")).json()["body"] is None

    asyncio.run(main())


def test_a_record_shows_its_versions_where_they_came_from_and_what_changed():
    async def main():
        async with installation() as (store, clock, _, client):
            first = await ingest(store, clock, emit("c/1", clock, name="Ada", address={"city": "Ulm"}))
            await clock.advance(60)
            big = 12345678901234567890123
            await ingest(store, clock, emit("c/1", clock, name="Ada", address={"city": "Bonn"}, balance=big))
            listed = await client.get("/records?q=c/&type=customer")
            assert 'href="/records/acme/customer/c%2F1"' in listed.text
            assert (await client.get("/records?q=x")).text.count("No record matches") == 1
            table = (await client.get("/connections/acme/records?format=csv")).text
            assert "acme,customer,c/1,2,false," in table
            url = "/records/acme/customer/c%2F1"
            hidden = (await client.get(url)).text
            assert "Bonn" not in hidden
            assert f'href="/runs/{first}"' in hidden
            shown = await client.get(f"{url}?reveal=true&format=json")
            assert shown.json()["changes"] == [
                {"name": "address.city", "before": '"Ulm"', "after": '"Bonn"'},
                {"name": "balance", "before": "", "after": str(big)},
            ]
            assert [one["version"] for one in shown.json()["versions"]] == [2, 1]
            oldest = await client.get(f"{url}?reveal=true&version=1")
            assert "Ulm" in oldest.text
            assert "Bonn" not in oldest.text
            assert (await client.get(f"{url}?version=3")).status_code == 404
            assert (await client.get("/records/acme/customer/none")).status_code == 404
            assert (await client.get("/records?after=x")).status_code == 400

    asyncio.run(main())


def test_nothing_of_another_tenant_is_there():
    async def main():
        async with installation(tenant="two") as (store, clock, acme, client):
            run_id = await ingest(store, clock, emit("c1", clock))
            found = await deliver(store, clock, acme, "evt_1")
            hidden = (
                "/connections/acme", "/connections/acme/runs", "/connections/acme/deliveries",
                "/connections/acme/streams/customers", f"/runs/{run_id}", f"/deliveries/{found}",
                "/connections/acme/records", "/records/acme/customer/c1",
            )  # fmt: skip
            for url in hidden:
                assert (await client.get(url)).status_code == 404, url
            for url in ("/deliveries", "/records"):
                assert (await client.get(f"{url}?format=json")).json()["data"] == []
            assert (await client.get("/connections/other")).status_code == 200

    asyncio.run(main())


def test_pages_without_anything_teach_the_next_step():
    async def main():
        async with installation() as (_, _, _, client):
            assert "headwater run acme STREAM" in (await client.get("/connections/acme/runs")).text
            assert "headwater trigger acme EVENT" in (await client.get("/connections/acme/deliveries")).text
            assert "headwater trigger CONNECTION EVENT" in (await client.get("/deliveries")).text

    asyncio.run(main())


def test_what_a_route_logged_is_shown_with_its_run_its_delivery_and_its_connection():
    async def main():
        async with installation() as (store, clock, acme, client):
            said = [
                NewLogLine(at=clock.now(), level=level, message=f"<b>{level}</b> line {n}")
                for n, level in enumerate(["info", "warning"])
            ]
            run_id = await ingest(store, clock, emit("c1", clock), log=said)
            await deliver(store, clock, acme, "evt_1")
            delivery_id = await dispatch(store, clock, log=[NewLogLine(at=clock.now(), level="error", message="odd")])
            for path, messages in (
                (f"/runs/{run_id}", [one.message for one in said]),
                (f"/deliveries/{delivery_id}", ["odd"]),
            ):
                page = (await client.get(path)).text
                assert all(escape(message) in page for message in messages)
                twin = (await client.get(f"{path}?format=json")).json()
                assert [one["message"] for one in twin["log"]] == messages
            page = (await client.get("/connections/acme/logs")).text
            assert f'href="/runs/{run_id}"' in page
            assert f'href="/deliveries/{delivery_id}"' in page
            loud = (await client.get("/connections/acme/logs?level=warning&format=json")).json()
            assert [one["level"] for one in loud["data"]] == ["error", "warning"]
            table = (await client.get("/connections/acme/logs?stream=customers&format=csv")).text.splitlines()
            assert len(table) == 1 + len(said)
            newest = (await client.get("/connections/acme/logs?limit=1")).text
            assert "more →" in newest
            nothing = (await client.get("/connections/other/logs")).text
            assert "No route has logged a line" in nothing
            assert "did you mean `warning`?" in (await client.get("/connections/acme/logs?level=warnin")).text

    asyncio.run(main())
