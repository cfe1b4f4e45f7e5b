"""Acts on a served installation with a real provider behind it, and the pages where they are followed."""

import asyncio
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

from doors import connect_shop, csrf_in, send, served
from headwater.acts.events import RECENT, SendEvent
from headwater.dashboard.backfills import MAP_CELLS_MAX, MAP_WIDTH, cells
from headwater.intention import RunEnd
from headwater.record import Counts, Quarantined
from headwater.run import BackfillWindow, RunState, Window
from headwater.testing.clock import START
from headwater.testing.conformance.world import new_delivery
from loopback import API_KEY, WEBHOOK_SECRET, loopback_shop, shop_project
from stored import LEASE_SECONDS, ingest

THIS = {"connection": "acme", "stream": "customers"}
DAY = timedelta(days=1)


@asynccontextmanager
async def a_shop(folder):
    """A served installation with a connection of the scaffolded connector, an operator before it, and the provider."""
    shop_project(folder / "shop")
    with loopback_shop() as shop:
        async with served(folder) as house:
            values = {"api_key": API_KEY, "webhook_secret": WEBHOOK_SECRET, "api_base": shop.url}
            await house.platform.add_connection("shop", values, key="acme")
            yield house, await house.person("operator"), shop


def visit(folder, story):
    async def main():
        async with a_shop(folder) as (house, browser, shop):
            await story(house, browser, shop)

    asyncio.run(main())


async def set_aside(house, *payloads):
    """Quarantine these payloads; the ids, oldest first."""
    records = [
        Quarantined(
            type="customer", stream="customers", source_id=f"c_{number}", idempotency_key=f"customer:c_{number}",
            payload=payload, reason="name is missing", as_of=0,
        )
        for number, payload in enumerate(payloads, 1)
    ]  # fmt: skip
    await ingest(house.store, house.clock, quarantined=records)
    return sorted(one.id for one in await house.store.quarantined())


def test_a_connection_is_tested_and_a_stream_is_tried_without_writing(tmp_path):
    async def story(house, browser, shop):
        works = await send(browser, "/connections/acme", "/acts/connections.test", connection="acme")
        assert "acme: The connection works." in works.text
        assert "headwater connections test acme" in works.text
        shop.refusals = [401]
        refused = await send(browser, "/connections/acme", "/acts/connections.test", connection="acme")
        assert 'class="error"' in refused.text
        plan = await browser.get("/acts/runs.try?connection=acme&stream=customers&pages_limit=2")
        assert "Nothing is written." in plan.text
        tried = await send(browser, "/account", "/acts/runs.try", **THIS, pages_limit="2")
        assert "2 pages would come to 3 created. Nothing was written." in tried.text
        assert "c_3" in tried.text
        assert await house.store.populations() == []
        assert API_KEY not in works.text + refused.text + tried.text
        too_many = await send(browser, "/account", "/acts/runs.try", **THIS, pages_limit="11")
        assert too_many.status_code == 422
        assert "Pages at most" in too_many.text

    visit(tmp_path, story)


def test_a_backfill_is_begun_followed_and_its_failed_windows_retried(tmp_path):
    async def story(house, browser, _):
        asked = await browser.get("/acts/backfills.start?connection=acme&stream=customers&start=2025-12-01&days=10")
        assert re.search(r"acme customers is asked for \d+ windows", asked.text)
        begun = await send(
            browser, "/account", "/acts/backfills.start", **THIS, start="2025-12-01", end="2025-12-21", days="10"
        )
        assert begun.headers["location"] == "/backfills/1"
        page = await browser.get("/backfills/1")
        assert "0 of 2 windows" in page.text
        assert page.text.count('class="is-todo"') == 3, "two windows and the legend"
        (first, _) = (await tick(house)).admitted
        await house.store.begin_run(first, at=house.clock.now(), lease_seconds=LEASE_SECONDS)
        await house.store.finish_run(
            RunEnd(ref=first, at=house.clock.now(), state=RunState.FAILED, error_code="stop.handler", error="It broke.")
        )
        page = (await browser.get("/backfills/1")).text
        assert "It broke." in page
        assert "/acts/backfills.retry?backfill=1" in page
        plan = (await browser.get("/acts/backfills.retry?backfill=1")).text
        assert "1 window of backfill 1 begin anew." in plan
        done = await send(browser, "/account", "/acts/backfills.retry", backfill="1")
        assert done.headers["location"] == "/backfills/1"
        twin = (await browser.get("/backfills/1?format=json")).json()
        assert sorted(one["state"] for one in twin["map"]) == ["running", "todo"]
        listed = (await browser.get("/backfills?format=json")).json()
        assert [one["id"] for one in listed["data"]] == [1]
        assert "0 of 2" in (await browser.get("/connections/acme/backfills")).text
        assert len((await browser.get("/backfills?format=csv")).text.splitlines()) == 2
        assert (await browser.get("/backfills/9")).status_code == 404

    async def tick(house):
        return await house.store.tick(
            house.clock.now(), decide=lambda due, at: (), admit_max=9, per_connection_max=9, lease_seconds=60
        )

    visit(tmp_path, story)


def test_the_map_of_many_windows_is_folded_and_hides_no_failure():
    windows = [
        BackfillWindow(
            id=number, backfill_id=1, window=Window(START + DAY * number, START + DAY * (number + 1)),
            state="failed" if number == 777 else "done", run_id=None, cursor=None, pages=1, counts=Counts(),
            started_at=None, finished_at=None, error=None,
        )
        for number in range(1000)
    ]  # fmt: skip
    found = cells(windows)
    assert len(found) == MAP_CELLS_MAX
    assert [one.state for one in found].count("failed") == 1
    assert found[-1].x + found[-1].width <= MAP_WIDTH
    assert "1 failed, 5 done" in next(one.words for one in found if one.state == "failed")
    assert cells([]) == []


def test_quarantined_records_are_looked_at_repaired_released_and_given_up(tmp_path):
    async def story(house, browser, _):
        good = b'{"id":"c_1","name":"Ann","email":null}'
        first, second, third = await set_aside(house, good, b'{"id":"c_2"}', b'{"id":"c_3"}')
        listed = await browser.get("/quarantine")
        assert "name is missing" in listed.text
        assert "Release all that match" in listed.text
        assert "hidden" in (await browser.get(f"/quarantine/{second}")).text
        shown = (await browser.get(f"/quarantine/{second}?reveal=true")).text
        assert 'action="/acts/quarantine.repair"' in shown
        wrong = await send(browser, "/account", "/acts/quarantine.repair", record=str(second), payload="{nonsense")
        assert wrong.status_code == 409
        assert "{nonsense" in wrong.text, "what was typed stays"
        right = '{"id":"c_2","name":"Bob","email":null}'
        repaired = await send(browser, "/account", "/acts/quarantine.repair", record=str(second), payload=right)
        assert repaired.headers["location"] == "/quarantine", repaired.text
        assert (await house.store.record("acme", "customer", "c_2")) is not None
        given_up = await send(browser, "/account", "/acts/quarantine.drop", ids=str(third))
        assert given_up.headers.get("location") == "/quarantine", given_up.text
        rest = await send(browser, "/account", "/acts/quarantine.release", connection="acme", expected="1")
        assert rest.headers.get("location") == "/quarantine", rest.text
        states = {one.id: one.state for one in await house.store.quarantined(state=None)}
        assert states == {first: "released", second: "released", third: "dropped"}
        assert "Nothing is quarantined" in (await browser.get("/quarantine")).text
        assert len((await browser.get("/quarantine?state=all&format=csv")).text.splitlines()) == 4
        assert (await browser.get("/quarantine/99")).status_code == 404

    visit(tmp_path, story)


def test_what_still_does_not_fit_stays_and_says_why(tmp_path):
    async def story(house, browser, _):
        (only,) = await set_aside(house, b'{"id":"c_1","name":["no","name"]}')
        done = await send(browser, "/account", "/acts/quarantine.release", ids=str(only))
        assert "0 records released. 1 record still does not fit." in done.text
        assert (await house.store.quarantined())[0].id == only

    visit(tmp_path, story)


def test_the_activity_of_a_connection_is_its_own(tmp_path):
    async def story(house, browser, _):
        await connect_shop(house, "acme2")
        await send(browser, "/account", "/acts/streams.pause", **THIS)
        await send(browser, "/account", "/acts/connections.pause", connection="acme2", reason="later")
        page = (await browser.get("/connections/acme/activity")).text
        assert "acme customers is paused." in page
        assert "headwater streams pause acme customers" in page
        assert "acme2 is paused" not in page
        twin = (await browser.get("/connections/acme/activity?format=json")).json()
        assert [one["act"] for one in twin["data"]] == ["streams.pause", "connections.add"]
        assert "later" in (await browser.get("/connections/acme2/activity")).text
        viewer = await house.person("viewer", email="vic@example.com")
        assert (await viewer.get("/connections/acme/activity")).status_code == 403

    visit(tmp_path, story)


def test_what_is_typed_counts_whether_it_is_shown_first_or_done_at_once(tmp_path):
    async def story(house, browser, _):
        plan = (await browser.get("/acts/connections.pause?connection=acme")).text
        assert plan.count('<form method="post" action="/acts/connections.pause"') == 1, "one form, so one truth"
        words = {"connection": "acme", "reason": "until Monday & later"}
        shown = await send(browser, "/account", "/acts/connections.pause", **words, expected="3", show="yes")
        assert shown.headers["location"] == "/acts/connections.pause?connection=acme&reason=until+Monday+%26+later"
        assert "csrf" not in shown.headers["location"]
        assert (await house.store.connection("acme")).paused_at is None
        assert 'value="until Monday &amp; later"' in (await browser.get(shown.headers["location"])).text
        done = await send(browser, "/account", "/acts/connections.pause", **words)
        assert done.headers["location"] == "/connections/acme"
        assert (await house.store.connection("acme")).paused_reason == words["reason"]

        token = csrf_in(await browser.get("/account"))
        rule = {"csrf": token, "conditions": ["late", "failing"], "targets": "ann@example.com"}
        added = await browser.post("/acts/alerts.add", data=rule)
        assert added.status_code == 303, added.text
        (told,) = await house.store.alert_rules()
        assert set(told.conditions) == {"late", "failing"}, "each of a choice, not the last alone"

    visit(tmp_path, story)


def test_a_test_event_goes_the_way_of_the_providers(tmp_path):
    async def story(house, browser, _):
        page = (await browser.get("/acts/deliveries.send?connection=acme")).text
        assert '<option value="customer_updated">' in page
        plan = await browser.get("/acts/deliveries.send?connection=acme&event_type=customer.updated")
        assert "customer_updated.json of the project, with a new id" in plan.text
        sent = await send(
            browser, "/account", "/acts/deliveries.send", connection="acme", event_type="customer.updated"
        )
        assert sent.headers.get("location") == "/deliveries/1", sent.text
        assert "pending" in (await browser.get("/deliveries/1")).text
        assert await house.application.dispatcher.dispatch_batch() == 1
        assert "1 changed, 1 emitted" in (await browser.get("/deliveries/1")).text
        outside = await send(
            browser, "/account", "/acts/deliveries.send", connection="acme", event_type="../payloads/customer_updated"
        )
        assert outside.headers["location"] == "/deliveries/2"
        assert (await house.store.delivery(2)).body.startswith(b'{"id": "evt_'), (
            "a bare event: no file is reached by name"
        )

    visit(tmp_path, story)


def test_a_test_event_is_told_from_those_that_come_with_it(tmp_path):
    async def story(house, _browser, _shop):
        desk = house.application._desk("ada", tenant=None)
        stored = await desk.connection("acme")

        async def others_come(name):
            own = [new_delivery(stored.id, f"{name}_{number}") for number in range(RECENT + 10)]
            await desk.store.append_deliveries(own)

        async def beside(*words):
            await others_come("before")
            status = await desk.take_in(*words)
            await others_come("after")
            return status

        done = await SendEvent(connection="acme", event_type="nobody.wants").carry_out(replace(desk, take_in=beside))
        found = await desk.store.delivery(done.value["delivery_id"])
        assert found.id == RECENT + 11
        assert b"nobody.wants" in found.body

        async def refused(*words):
            await others_come("later")
            return 401

        done = await SendEvent(connection="acme", event_type="nobody.wants").carry_out(replace(desk, take_in=refused))
        assert (done.value["delivery_id"], done.ok) == (None, False)

    visit(tmp_path, story)


def test_the_system_tells_what_runs_and_examines_its_store(tmp_path):
    async def story(house, browser, _):
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "connector.py").write_text("nonsense(")
        await house.platform.load_project(tmp_path / "broken")
        page = (await browser.get("/system")).text
        assert "shop" in page
        twin = (await browser.get("/system?format=json")).json()
        assert twin["store"] == "sqlite"
        assert [(one["key"], one["connections"]) for one in twin["connectors"]] == [("shop", 1)]
        assert twin["refused"][0]["path"].endswith("broken")
        done = await send(browser, "/account", "/acts/system.examine")
        assert "All is well." in done.text
        assert "integrity" in done.text

    visit(tmp_path, story)


def test_a_run_that_was_asked_for_is_carried_out(tmp_path):
    async def story(house, browser, _):
        asked = await send(browser, "/connections/acme/streams/customers", "/acts/runs.trigger", **THIS)
        assert asked.headers["location"] == "/runs/1"
        assert "/acts/runs.cancel?run=1" in (await browser.get("/runs/1")).text
        cancelled = await send(browser, "/runs/1", "/acts/runs.cancel", run="1")
        assert cancelled.headers["location"] == "/runs/1"
        assert "cancelled" in (await browser.get("/runs/1")).text

    visit(tmp_path, story)
