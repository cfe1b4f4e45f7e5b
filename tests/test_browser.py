"""The pages in a real browser: reachable, accessible (axe, WCAG 2.2 AA), free of errors; acts with and without scripts.

Skipped where there is no Chromium. `HEADWATER_SCREENSHOTS=folder` keeps a picture of every page: light, dark, narrow.
"""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect, sync_playwright

from live_server import LiveServer
from loopback import API_KEY, WEBHOOK_SECRET, loopback_shop, shop_project

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
    pytest.mark.xdist_group("browser"),
]

PAGES = {
    "overview": "/",
    "overview-filtered": "/?status=failing",
    "connection": "/connections/acme",
    "runs": "/connections/acme/runs",
    "deliveries-of": "/connections/acme/deliveries",
    "records-of": "/connections/acme/records",
    "backfills-of": "/connections/acme/backfills",
    "logs": "/connections/acme/logs",
    "activity": "/connections/acme/activity",
    "settings": "/connections/acme/settings",
    "connect": "/connect",
    "connect-form": "/connect/shop",
    "act-remove": "/acts/connections.remove?connection=acme",
    "stream": "/connections/acme/streams/customers",
    "stream-webhook": "/connections/acme/streams/events",
    "run": "/runs/1",
    "run-failed": "/runs/3",
    "deliveries": "/deliveries",
    "delivery": "/deliveries/1?reveal=true",
    "delivery-dead": "/deliveries/2",
    "records": "/records",
    "record": "/records/acme/customer/c1?reveal=true",
    "backfills": "/backfills",
    "backfill": "/backfills/1",
    "quarantine": "/quarantine",
    "quarantined": "/quarantine/1?reveal=true",
    "alerts": "/alerts",
    "system": "/system",
    "audit": "/audit",
    "login": "/login",
    "act-replay": "/acts/deliveries.replay?state=dead",
    "act-backfill": "/acts/backfills.start?connection=acme&stream=customers&start=2026-01-01",
    "act-checkpoint": "/acts/checkpoints.set?connection=acme&stream=customers&cursor=",
    "act-rule": "/acts/alerts.add?conditions=late&hold_minutes=x",
    "act-forget": "/acts/records.forget?connection=acme",
    "missing": "/runs/999",
}
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browsed")
    shop_project(folder / "shop")
    running = LiveServer(folder).begin()
    yield running
    running.end()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@contextmanager
def window(browser, served, *, size="wide", **choices):
    """A page of a browser without a history; errors of its console are kept in `page.said`."""
    width, height = SIZES[size]
    context = browser.new_context(
        base_url=served.url, viewport={"width": width, "height": height}, reduced_motion="reduce", **choices
    )
    page = context.new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    try:
        yield page
    finally:
        context.close()


def picture(page, name):
    folder = os.environ.get("HEADWATER_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.mark.parametrize(("scheme", "size"), [("light", "wide"), ("dark", "wide"), ("light", "narrow")])
def test_every_page_is_accessible_and_free_of_errors(browser, served, scheme, size):
    axe, found = Axe(), []
    with window(browser, served, size=size, color_scheme=scheme) as page:
        for name, path in PAGES.items():
            answer = page.goto(path)
            assert answer.status < 500, path
            assert page.locator("footer").inner_text().endswith("Headwater test"), path
            picture(page, f"{name}-{scheme}-{size}")
            for one in axe.run(page, options=RULES).response["violations"]:
                nodes = "; ".join(node["html"][:160] for node in one["nodes"][:3])
                found.append(f"{path}: {one['id']} ({one['impact']}): {nodes}")
            if size == "narrow":
                wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
                assert not wide, f"{path} scrolls sideways"
        errors = [one for one in page.said if "404" not in one]  # the page that is missing
    assert not found, "\n".join(sorted(set(found)))
    assert errors == []


@pytest.mark.parametrize("with_scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_stream_is_paused_resumed_and_run_by_clicks(browser, served, with_scripts):
    with window(browser, served, java_script_enabled=with_scripts) as page:
        page.goto("/")
        page.get_by_role("link", name="customers", exact=False).first.click()
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("an operator paused this stream")).to_be_visible()
        page.get_by_role("button", name="Resume").click()
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        page.get_by_role("button", name="Run now").click()
        page.wait_for_url("**/runs/*")
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("cancelled").first).to_be_visible()
        assert page.said == []


def test_all_that_match_are_replayed_and_that_is_cancelled_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/connections/acme/deliveries?state=done")
        count = page.locator("[data-row]").count()
        page.get_by_role("link", name="Replay all that match …").click()
        expect(page.get_by_text(re.compile(rf"{count} deliver(y is|ies are) dispatched again"))).to_be_visible()
        page.get_by_role("button", name="Replay").click()
        progress = page.get_by_role("region", name="Replayed")
        expect(progress).to_contain_text(f"0 of {count} are settled")
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Cancel").click()
        expect(progress).to_contain_text(f"{count} of {count} are settled")


@pytest.mark.parametrize("with_scripts", [True, False], ids=["scripts", "no-scripts"])
def test_a_delivery_is_found_and_replayed_by_clicks(browser, served, with_scripts):
    with window(browser, served, java_script_enabled=with_scripts) as page:
        page.goto("/")
        page.get_by_role("link", name="Deliveries").click()
        page.get_by_label("State").select_option("dead" if with_scripts else "done")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Replay the chosen").click()
        expect(page.get_by_text("1 delivery is dispatched again.")).to_be_visible()
        page.get_by_role("button", name="Replay").click()
        expect(page.get_by_text("pending").first).to_be_visible()
        page.get_by_role("link", name="Audit").click()
        expect(page.get_by_text("1 delivery waits to be dispatched again.").first).to_be_visible()


def test_a_backfill_is_begun_and_cancelled_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/connections/acme/streams/events")
        assert page.get_by_role("link", name="Backfill …").count() == 0
        page.goto("/connections/acme/streams/customers")
        page.get_by_role("link", name="Backfill …").click()
        page.get_by_label("From").fill("2026-01-01T00:00")
        page.get_by_label("To", exact=False).fill("2026-01-21T00:00")
        page.get_by_label("Days in a window").fill("10")
        page.get_by_role("button", name="Show what it would do").click()
        expect(page.get_by_text("is asked for 2 windows of the past")).to_be_visible()
        page.get_by_role("button", name="Backfill").click()
        expect(page.get_by_text("0 of 2 windows").first).to_be_visible()
        page.get_by_role("link", name="Cancel").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_text("cancelled").first).to_be_visible()


def test_a_checkpoint_is_set_and_put_back_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/connections/acme/streams/customers")
        page.get_by_role("link", name="Set it …", exact=True).click()
        page.get_by_label("Go on after").fill("elsewhere")
        page.get_by_role("button", name="Show what it would do").click()
        page.get_by_role("button", name="Set the checkpoint").click()
        expect(page.get_by_text("elsewhere").first).to_be_visible()
        page.get_by_text("Put elsewhere by hand").click()
        page.get_by_role("link", name="Undo").click()
        expect(page.get_by_text("goes on at `c1`")).to_be_visible()
        page.get_by_role("button", name="Set the checkpoint").click()
        expect(page.get_by_role("definition").get_by_text("c1", exact=True)).to_be_visible()


def test_quarantined_records_are_given_up_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/quarantine")
        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Give up the chosen").click()
        expect(page.get_by_text("1 quarantined record is given up.")).to_be_visible()
        page.get_by_role("button", name="Give up").click()
        expect(page.get_by_text("Nothing is quarantined")).to_be_visible()


def test_a_rule_is_added_a_stream_muted_and_both_taken_back_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/alerts")
        page.get_by_role("link", name="Add a rule").click()
        page.get_by_label("failing").check()
        page.get_by_label("Tell").fill("ann@example.com")
        page.get_by_role("button", name="Show what it would do").click()
        page.get_by_role("button", name="Add a rule").click()
        expect(page.get_by_role("cell", name="ann@example.com")).to_be_visible()
        page.goto("/connections/acme/streams/customers")
        page.get_by_role("link", name="Mute").click()
        page.get_by_label("Hours").fill("2")
        page.get_by_role("button", name="Show what it would do").click()
        page.get_by_role("button", name="Mute").click()
        page.get_by_role("button", name="Unmute").click()
        expect(page.get_by_role("button", name="Unmute")).to_have_count(0)
        page.get_by_role("button", name="Remove").click()
        expect(page.get_by_text("Nobody is told of anything.")).to_be_visible()


def test_an_account_is_connected_and_its_secret_rotated_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/")
        page.get_by_role("link", name="Connect an account").click()
        page.get_by_role("link", name="Shop").click()
        page.get_by_label("Your name for it").fill("second")
        for field in page.locator("input[type=password]").all():
            field.fill("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=")
        page.get_by_role("button", name="Connect").click()
        expect(page.get_by_role("heading", name="Webhooks")).to_be_visible()
        page.get_by_label("A new one").first.fill("another-secret-value")
        page.get_by_role("button", name="Rotate").first.click()
        expect(page.get_by_text("The one before is valid until")).to_be_visible()
        page.get_by_role("link", name="Remove the connection").click()
        page.get_by_role("button", name="Remove the connection").click()
        page.wait_for_url(f"{served.url}/")


def test_keys_lead_where_links_do(browser, served):
    with window(browser, served) as page:
        page.goto("/")
        page.keyboard.press("g")
        page.keyboard.press("d")
        page.wait_for_url("**/deliveries")
        page.keyboard.press("j")
        assert page.evaluate("document.activeElement.closest('[data-row]') !== null")
        page.keyboard.press("?")
        assert page.get_by_role("dialog").is_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("r")
        page.wait_for_url("**/records")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"


def test_nothing_is_asked_from_elsewhere(browser, served):
    with window(browser, served) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        for path in ("/", "/connections/acme/streams/customers", "/alerts"):
            page.goto(path)
        assert asked
        assert all(url.startswith(served.url) for url in asked)


def test_an_account_is_tried_without_a_trace_and_sent_an_event_by_clicks(browser, served):
    with loopback_shop() as shop, window(browser, served) as page:
        page.goto("/connect/shop")
        page.get_by_label("Your name for it").fill("tried")
        for name, value in (("api_base", shop.url), ("api_key", API_KEY), ("webhook_secret", WEBHOOK_SECRET)):
            page.locator(f"input[name$='{name}']").fill(value)
        page.get_by_role("button", name="Connect").click()
        page.goto("/connections/tried")
        page.get_by_role("button", name="Test").click()
        expect(page.get_by_text("The connection works.")).to_be_visible()
        page.goto("/connections/tried/streams/customers")
        page.get_by_role("link", name="Dry run …").click()
        page.get_by_role("button", name="Dry run").click()
        expect(page.get_by_text("Nothing was written")).to_be_visible()
        page.goto("/connections/tried/deliveries")
        page.get_by_role("link", name="Send a test event").click()
        page.get_by_label("Event type").fill("customer.updated")
        page.get_by_role("button", name="Show what it would do").click()
        page.get_by_role("button", name="Send a test event").click()
        page.wait_for_url("**/deliveries/*")
        expect(page.get_by_text("customer.updated").first).to_be_visible()
        page.goto("/connections/tried")
        page.get_by_role("link", name="Pause …").click()
        page.get_by_label("Why").fill("until Monday")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_text("until Monday").first).to_be_visible()
        page.get_by_role("button", name="Resume").first.click()
        expect(page.get_by_text("until Monday")).to_have_count(0)
        assert page.said == []


def test_a_checkpoint_is_reset_and_records_are_forgotten_by_clicks(browser, served):
    with window(browser, served) as page:
        page.goto("/connections/acme/streams/customers")
        page.get_by_role("link", name="Reset it …").click()
        expect(page.get_by_text("begins at the beginning").first).to_be_visible()
        page.get_by_role("main").get_by_role("button").click()
        expect(page.get_by_role("link", name="Reset it …")).to_have_count(0)
        page.goto("/connections/acme/records")
        expect(page.get_by_role("link", name="c1", exact=True)).to_be_visible()
        page.goto("/connections/acme")
        page.get_by_role("link", name="Forget stored records …").click()
        expect(page.get_by_text("It cannot be undone.")).to_be_visible()
        page.get_by_role("button", name="Forget stored records").click()
        page.goto("/connections/acme/records")
        expect(page.get_by_role("link", name="c1", exact=True)).to_have_count(0)


def test_a_page_renews_itself_only_where_it_helps(browser, served):
    with window(browser, served, size="narrow") as page:
        page.clock.install()
        asked = []
        page.on("request", lambda request: asked.append(request.url) if request.resource_type == "fetch" else None)

        def renewals(*, after):
            """How often it asks for itself in a while, once something was done to it."""
            page.evaluate(after)
            before = len(asked)
            page.clock.run_for(30_000)
            page.wait_for_load_state("networkidle")
            return len(asked) - before

        page.goto("/")
        assert renewals(after="0") > 0
        assert all(url.startswith(served.url) for url in asked)
        assert renewals(after="getSelection().selectAllChildren(document.querySelector('h1'))") == 0
        assert renewals(after="getSelection().removeAllRanges()") > 0
        assert renewals(after="document.querySelector('main').style.minHeight = '3000px', scrollTo(0, 900)") == 0
        assert renewals(after="scrollTo(0, 0)") > 0
        hide = "Object.defineProperty(document, 'hidden', {configurable: true, value: %s})"
        assert renewals(after=hide % "true") == 0
        assert renewals(after=hide % "false") > 0
        page.keyboard.press("?")
        assert renewals(after="0") == 0, "somebody reads the dialog"
        assert page.said == []
