"""The first page: what it shows, in which order, and that nothing foreign runs in it."""

import asyncio
import re
from datetime import timedelta
from html.parser import HTMLParser

import httpx
import pytest
from msgspec.structs import replace
from starlette.applications import Starlette

from headwater.api.access import Caller, key_guard
from headwater.dashboard import overview, views
from headwater.dashboard.page import SECURITY_HEADERS, STATIC_PATH, Pages
from headwater.dashboard.picture import bar_picture, legend, strip_picture
from headwater.dashboard.strip import CellState, strip, summary
from headwater.health import report
from headwater.record import Counts
from headwater.run import RunState
from headwater.testing.clock import FakeClock
from stored import connect, deliver, dispatch, emit, fail, ingest, open_store, webhook
from stream_states import NOON, at, make_state, make_tick_run, make_webhook

LINE = "*/15 * * * *"
REGISTERED = at(0, day=1)


def cells(runs, instant, *, count=4, registered_at=REGISTERED):
    return strip(LINE, "UTC", runs, instant, registered_at=registered_at, grace_seconds=225, count=count)


def states(found):
    return [cell.state.value for cell in found]


def test_a_missed_tick_is_a_hole_between_the_others():
    runs = [make_tick_run(at(13, 0)), make_tick_run(at(13, 30))]
    found = cells(runs, at(13, 59))
    assert [cell.tick for cell in found] == [at(13, 0), at(13, 15), at(13, 30), at(13, 45)]
    assert states(found) == ["ok", "missed", "ok", "missed"]
    assert summary(found) == "4 expected ticks: 2 ok, 2 missed."


def test_each_end_of_a_run_has_its_own_cell():
    runs = [
        make_tick_run(at(13, 0), attempt=3),
        make_tick_run(at(13, 15), state=RunState.FAILED),
        make_tick_run(at(13, 30), state=RunState.CANCELLED),
        make_tick_run(at(13, 45), state=RunState.RETRYING, finished_at=None),
    ]
    assert states(cells(runs, at(13, 59))) == ["retried", "failed", "skipped", "running"]


def test_a_tick_within_its_grace_is_not_missed_yet():
    assert states(cells([make_tick_run(at(13, 30))], at(13, 48), count=2)) == ["ok", "none yet"]


def test_ticks_before_the_stream_was_declared_are_no_holes():
    found = cells([make_tick_run(at(13, 45))], at(13, 59), registered_at=at(13, 40))
    assert states(found) == ["none yet", "none yet", "none yet", "ok"]


def test_a_tick_during_a_long_run_is_skipped_not_missed():
    runs = [make_tick_run(at(13, 0), finished_at=at(13, 40))]
    assert states(cells(runs, at(13, 59))) == ["ok", "skipped", "skipped", "missed"]
    going = [make_tick_run(at(13, 0), state=RunState.RUNNING, finished_at=None)]
    assert states(cells(going, at(13, 59))) == ["running", "skipped", "skipped", "skipped"]


def test_an_operators_run_mends_the_tick_before_it():
    runs = [
        make_tick_run(at(13, 0), state=RunState.FAILED, id=1),
        make_tick_run(at(13, 7), id=2),
        make_tick_run(at(13, 20), id=3),
    ]
    found = cells(runs, at(13, 29), count=2)
    assert states(found) == ["retried", "ok"]
    assert [cell.run_id for cell in found] == [2, 3]


def test_the_strip_is_ninety_ticks_and_tells_each_that_did_not_go_well():
    found = strip(LINE, "UTC", [make_tick_run(at(13, 45))], at(13, 59), registered_at=REGISTERED, grace_seconds=225)
    picture = strip_picture(found)
    assert len(found) == 90
    assert picture.width == 359
    assert [name for name, _ in picture.paths] == ["missed", "ok"]
    [mark] = picture.marks
    assert (mark.x, mark.width) == (0, 89 * 4)
    assert mark.title.endswith(" to 10 Mar 2026 13:30:00 UTC: 89 missed")


def test_a_tick_that_went_ill_alone_is_told_by_itself():
    runs = [make_tick_run(at(13, 15)), make_tick_run(at(13, 30), state=RunState.FAILED), make_tick_run(at(13, 45))]
    [mark] = strip_picture(cells(runs, at(13, 59), count=3)).marks
    assert (mark.x, mark.width, mark.title) == (4, 4, "10 Mar 2026 13:30:00 UTC: failed")


def test_every_state_has_a_shape_of_its_own():
    shapes = {path for _, path, _ in legend()}
    assert len(shapes) == len(CellState)


def test_the_freshness_bar_is_age_against_what_is_expected():
    state = make_state(last_success_at=at(13, 45))
    half = bar_picture(report(state, at(13, 52, 30)))
    assert (half.fill, half.expected_x) == (24.0, 48.0)
    assert half.late_x == 60.0  # a quarter of the interval later
    assert bar_picture(report(state, at(20))).fill == 96.0
    assert bar_picture(report(make_state(), at(13))) is None
    assert bar_picture(report(make_webhook(last_delivery_at=at(13)), at(13, 1))) is None


def reports():
    return [
        report(make_state(id=1, connection="b", stream="late", last_success_at=at(13, 45)), at(14, 5)),
        report(make_state(id=2, connection="a", stream="fresh", last_success_at=at(14)), at(14, 5)),
        report(make_state(id=3, connection="b", stream="fresh", last_success_at=at(14)), at(14, 5)),
        report(make_state(id=4, connection="a", stream="never", tenant="north"), at(14, 5)),
    ]


def page(filters=None):
    filters = filters or overview.Filters()
    found = overview.matching(reports(), filters)
    return overview.overview(
        reports(), filters, shown=overview.page_of(found, filters), matching=len(found), at=at(14, 5), connections={},
        connector_names={}, strips={},
    )  # fmt: skip


def test_the_worst_connection_comes_first_and_its_worst_stream_at_its_top():
    shown = [(group.key, [row.one.stream for row in group.rows]) for group in page().groups]
    assert shown == [("b", ["late", "fresh"]), ("a", ["never", "fresh"])]
    assert page().sentence == "2 connections ingest 4 streams: 1 late, 1 never ran, 2 fresh."
    assert page().groups[0].summary == "Stripe (b) ingests 2 streams: 1 fresh, 1 late."


def test_chips_count_under_the_other_filters():
    found = page(overview.Filters(connection="b", status="late"))
    assert [(chip.word, chip.count, chip.is_on) for chip in found.chips] == [
        ("all", 2, False), ("late", 1, True), ("fresh", 1, False),
    ]  # fmt: skip
    assert found.chips[2].url == "?status=fresh&connection=b"
    assert [row.one.stream for group in found.groups for row in group.rows] == ["late"]


def test_many_streams_take_pages(monkeypatch):
    monkeypatch.setattr(overview, "ROWS_MAX", 3)
    first, second = page(), page(overview.Filters(page=2))
    assert (first.shown, second.shown, first.pages) == (3, 1, 2)


async def everybody(_):
    return Caller(name="test", scopes=frozenset({"read"}))


def run(story, *, guard=everybody):
    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            given = guard(store, clock) if guard is key_guard else guard
            routes = views.routes(
                store=store, clock=clock, guard=given, connector_names={"stripe": "Stripe"}, version="0.1.0"
            )
            transport = httpx.ASGITransport(Starlette(routes=routes))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                await story(store, clock, client)

    asyncio.run(main())


class Outline(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


async def fill(store, clock):
    stored = await connect(store, clock, streams=["customers", "invoices", webhook()])
    await ingest(store, clock, emit("c1", clock), emit("c2", clock))
    await fail(store, clock, stream="invoices", error="<script>alert('x')</script> broke.")
    await deliver(store, clock, stored, "evt_1")
    await dispatch(store, clock, emit("e1", clock, stream="events"))
    await clock.advance(60)


def test_the_page_says_how_every_stream_is_in_a_sentence():
    async def story(store, clock, client):
        await fill(store, clock)
        answer = await client.get("/")
        assert answer.status_code == 200
        shown = Outline(answer.text)
        assert "1 connection ingests 3 streams: 1 failing, 2 fresh." in shown.text
        assert "Stripe (acme) ingests 3 streams: 2 fresh, 1 failing." in shown.text
        assert "Fresh. Last success 12:00, next 12:15." in shown.text
        assert "poll · every 15 minutes" in shown.text
        assert "+2 ~0 −0" in shown.text
        assert "60 s ago" in shown.text
        strips = [attrs for tag, attrs in shown.tags if tag == "svg" and attrs.get("class") == "strip"]
        assert len(strips) == 2
        assert all(one["role"] == "img" and "expected ticks" in one["aria-label"] for one in strips)
        times = [attrs for tag, attrs in shown.tags if tag == "time" and "data-ago" in attrs]
        assert times[0]["datetime"].endswith("Z")

    run(story)


def test_nothing_foreign_runs_in_the_page():
    async def story(store, clock, client):
        await fill(store, clock)
        answer = await client.get("/", params={"q": '"><script>alert(1)</script>'})
        every = await client.get("/")
        for found in (answer, every):
            shown = Outline(found.text)
            scripts = [attrs for tag, attrs in shown.tags if tag == "script"]
            assert [one["type"] for one in scripts] == ["module"]
            assert scripts[0]["src"].startswith("/static/headwater.js?v=")
            assert not [name for _, attrs in shown.tags for name in attrs if name == "style" or name.startswith("on")]
            assert not [tag for tag, _ in shown.tags if tag in ("style", "iframe", "object")]
            links = [attrs.get("href") or attrs.get("src") or "/" for _, attrs in shown.tags]
            assert all(link.startswith(("/", "?", "#")) for link in links)
        assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; broke." in every.text
        policy = every.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        for name, value in SECURITY_HEADERS.items():
            assert every.headers[name] == value

    run(story)


def test_filters_are_in_the_url_and_the_twin_says_the_same():
    async def story(store, clock, client):
        await fill(store, clock)
        html = Outline((await client.get("/", params={"status": "failing"})).text)
        assert "invoices" in html.text
        assert "customers" not in html.text
        assert ("a", {"href": "?status=failing&format=json"}) in html.tags
        answer = await client.get("/", params={"status": "failing", "format": "json"})
        assert answer.headers["content-type"] == "application/json"
        twin = answer.json()
        assert twin["summary"] in html.text
        assert twin["statuses"] == {"all": 3, "failing": 1, "fresh": 2}
        ((one,),) = [group["streams"] for group in twin["connections"]]
        assert (one["health"]["stream"], one["health"]["status"]) == ("invoices", "failing")
        assert len(one["strip"]["cells"]) == 90
        assert set(one["strip"]["cells"][-1]) == {"tick", "state", "run_id", "changed"}
        nothing = Outline((await client.get("/", params={"q": "nothing"})).text)
        assert "No stream matches these filters. Show all 3 ." in nothing.text

    run(story)


def test_an_unknown_filter_is_refused_as_a_page_and_as_a_problem():
    async def story(store, clock, client):
        html = await client.get("/", params={"statsu": "late"})
        assert html.status_code == 400
        assert "did you mean `status`?" in html.text
        assert html.headers["content-security-policy"] == SECURITY_HEADERS["Content-Security-Policy"]
        twin = await client.get("/", params={"status": "latte", "format": "json"})
        assert twin.headers["content-type"] == "application/problem+json"
        assert "did you mean `late`?" in twin.json()["detail"]

    run(story)


def test_an_empty_dashboard_teaches():
    async def story(store, clock, client):
        shown = Outline((await client.get("/")).text)
        assert "Nothing is ingested yet." in shown.text
        for command in ("headwater init", "headwater check", "headwater connections add", "headwater serve"):
            assert command in shown.text

    run(story)


def test_the_page_is_behind_the_guard():
    async def story(store, clock, client):
        await fill(store, clock)
        answer = await client.get("/")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "This needs an API key." in answer.text
        assert "customers" not in answer.text
        assert (await client.get("/", params={"format": "json"})).json()["status"] == 401

    run(story, guard=key_guard)


def test_a_tenants_caller_sees_its_connections_alone():
    async def north(_):
        return Caller(name="north", scopes=frozenset({"read"}), tenant="north")

    async def story(store, clock, client):
        await connect(store, clock, "n1", tenant="north")
        await connect(store, clock, "s1", tenant="south")
        for params in ({}, {"format": "json"}, {"mode": "poll"}):
            text = (await client.get("/", params=params)).text
            assert "n1" in text
            assert "s1" not in text
            assert "south" not in text
        twin = (await client.get("/", params={"format": "json"})).json()
        assert [group["key"] for group in twin["connections"]] == ["n1"]

    run(story, guard=north)


def test_static_files_are_kept_by_their_content_and_nothing_else_is_served():
    async def story(store, clock, client):
        shown = Outline((await client.get("/")).text)
        urls = [attrs.get("href") or attrs.get("src") for tag, attrs in shown.tags if tag in ("link", "script")]
        assert len(urls) == 3
        for url in urls:
            answer = await client.get(url)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for name in ("../views.py", "..%2fviews.py", "%2e%2e/views.py", "none.css"):
            assert (await client.get(f"{STATIC_PATH}/{name}")).status_code == 404

    run(story)


def test_the_style_sheet_and_module_ask_for_nothing_outside():
    for name in ("headwater.css", "headwater.js", "headwater.svg"):
        asset = Pages()._assets[name].content.decode()
        outside = re.findall(r"(?:https?:)?//[a-z][^\s\"')]*", asset)
        assert [url for url in outside if "www.w3.org" not in url] == []


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_colour_of_the_page_is_legible_on_its_ground(mode):
    """WCAG contrast of text on every ground it stands on: at least 4.5."""
    css = Pages()._assets["headwater.css"].content.decode()
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[0 if mode == "light" else 1]))
    grounds = [colours[name] for name in colours if name in ("ground", "surface") or name.endswith("-ground")]
    for ground in grounds:
        for name in ("ink", "soft", "faint"):
            assert contrast(colours[name], ground) >= 4.5, (name, ground)
        assert contrast(colours["fresh"], ground) >= 3, ground
    for name in ("late", "failing", "attention"):
        assert contrast(colours[name], colours[f"{name}-ground"]) >= 4.5, name


def contrast(one, other):
    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_strange_stream_does_not_break_the_page():
    odd = replace(
        make_state(
            id=9,
            stream="odd",
            partition='<b>"x"</b>',
            last_success_at=NOON - timedelta(days=400),
            last_error="\n",
            consecutive_failures=1,
            counts_24h=Counts(created=10**9),
        )
    )
    one = report(odd, NOON)
    shown = overview.overview(
        [one],
        overview.Filters(),
        shown=[one],
        matching=1,
        at=NOON,
        connections={},
        connector_names={},
        strips={9: cells([], NOON)},
    )
    text = bytes(
        Pages().render("overview.html", page=shown, product="x", at=shown.at, who=None, reaches=lambda _: False).body
    ).decode()
    assert "<b>&#34;" not in text
    assert "odd[&lt;b&gt;&#34;x&#34;&lt;/b&gt;]" in text
    assert "+1,000,000,000" in text
