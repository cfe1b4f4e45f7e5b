"""The shell around every screen: navigation, addresses, formats, refusals."""

import asyncio

import httpx
from starlette.applications import Starlette

from headwater.api.access import Caller
from headwater.api.endpoint import Services
from headwater.dashboard import views
from headwater.dashboard.address import Address, path
from headwater.dashboard.csv import Table, csv_response
from headwater.dashboard.page import Pages, size, span
from headwater.dashboard.screen import Answer, Screens
from headwater.testing.clock import FakeClock
from stored import connect, open_store
from stream_states import NOON


async def everybody(_):
    return Caller(name="test", scopes=frozenset({"read"}))


def made(*paths, store=None, guard=everybody):
    """Screens with a page at each of these paths."""
    clock = FakeClock(NOON)
    screens = Screens(services=Services(store=store, clock=clock, guard=guard), pages=Pages(), version="1")

    async def show(request, caller):
        table = Table(name="things", columns=("a", "b"), rows=[("x", 1)])
        return Answer(template="problem.html", values={"message": "Here", "hint": ""}, twin={"a": 1}, table=table)

    screens.add([screens.route(one, show) for one in paths])
    return screens


def get(screens, url, **headers):
    async def main():
        transport = httpx.ASGITransport(Starlette(routes=screens.routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(url, headers=headers)

    return asyncio.run(main())


def test_the_navigation_leads_only_to_what_is_there():
    answer = get(made("/", "/system", "/deliveries", "/deliveries/{id:int}"), "/deliveries/7")
    assert 'href="/system"' in answer.text
    assert 'href="/deliveries" data-key="d" aria-current="true"' in answer.text
    assert "/audit" not in answer.text


def test_an_act_is_linked_once_somebody_registers_it():
    screens = made("/acts/{act}")
    assert screens.reaches("/acts/replay")
    assert not screens.reaches("/account")


def test_every_page_has_its_twin_and_every_list_its_table():
    screens = made("/things")
    html = get(screens, "/things?q=a%26b")
    assert 'href="?q=a%26b&amp;format=json"' in html.text
    assert 'href="?q=a%26b&amp;format=csv"' in html.text
    assert get(screens, "/things?format=json").json() == {"a": 1}
    table = get(screens, "/things?format=csv")
    assert table.text == "a,b\r\nx,1\r\n"
    assert table.headers["content-disposition"] == 'attachment; filename="things.csv"'


def test_a_cell_is_never_a_formula():
    rows = [("=1+1", -5, None, True, NOON), ("@x", 0.5, "a,b", False, "+1"), ("-2", 1, "\t=1", "é", 'q"')]
    text = csv_response(Table(name="t", columns=tuple("abcde"), rows=rows)).body.decode()
    assert text.splitlines()[1:] == [
        "'=1+1,-5,,true,2026-03-10T12:00:00Z",
        "'@x,0.5,\"a,b\",false,'+1",
        '\'-2,1,\'\t=1,é,"q"""',
    ]


def test_another_filter_begins_at_the_top_and_empty_ones_leave_the_url():
    here = Address(path="/deliveries", parameters={"state": "dead", "after": "9", "q": "a b"})
    assert here.url(state=None) == "?q=a+b"
    assert here.url(connection="acme") == "?state=dead&q=a+b&connection=acme"
    assert here.also(format="csv") == "?state=dead&after=9&q=a+b&format=csv"
    assert here.kept(("q",)) == [("state", "dead")]
    assert path("records", "acme", "a/b?") == "/records/acme/a%2Fb%3F"


def test_spans_and_sizes_have_the_unit_that_a_reader_needs():
    assert [span(one) for one in (None, 0.0421, 1.25, 59, 7200)] == ["–", "42 ms", "1.2 s", "59 s", "2 h"]
    assert [size(one) for one in (0, 999, 1500, 64_000, 3_200_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1.5 KB",
        "64 KB",
        "3.2 GB",
    ]


def test_the_overview_is_a_list_for_spreadsheets_too():
    async def main():
        clock = FakeClock(NOON)
        async with open_store(clock=clock) as store:
            await connect(store, clock, streams=["customers", "invoices"])
            routes = views.routes(store=store, clock=clock, guard=everybody)
            transport = httpx.ASGITransport(Starlette(routes=routes))
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                answer = await client.get("/?q=invoices&format=csv")
                refused = await client.get("/?format=xml")
        head, row = answer.text.splitlines()
        assert head.startswith("connection,connector,tenant,stream,partition,mode,cadence,status,sentence")
        assert row.startswith("acme,stripe,,invoices,,poll,every 15 minutes,never ran,")
        assert refused.status_code == 400

    asyncio.run(main())
