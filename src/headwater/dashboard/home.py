"""`/`: every stream of every connection, worst first."""

from __future__ import annotations

from dataclasses import replace

from starlette.requests import Request
from starlette.routing import Route

from headwater import health
from headwater.api.access import Caller, visible
from headwater.api.query import Query
from headwater.catalog import MODES
from headwater.dashboard.csv import Table
from headwater.dashboard.overview import Filters, matching, overview, page_of, twin
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.dashboard.strip import strips
from headwater.health import StreamReport
from headwater.verdict import Status

PAGE_MAX = 10_000
COLUMNS = (
    "connection", "connector", "tenant", "stream", "partition", "mode", "cadence", "status", "sentence",
    "last_success_at", "last_record_at", "next_at", "created_24h", "updated_24h", "deleted_24h",
)  # fmt: skip


def routes(screens: Screens) -> list[Route]:
    """The overview."""

    async def show(request: Request, caller: Caller) -> Answer:
        filters = _filters(request)
        at = screens.clock.now()
        states = {one.id: one for one in await screens.store.streams(at=at, tenant=caller.tenant)}
        standings = [health.standing(one, at) for one in states.values()]
        found = matching(standings, filters)
        shown = [health.report(states[one.id], at) for one in page_of(found, filters)]
        cells = await strips(screens.store, shown, at)
        connections = await visible(caller, screens.store)
        page = overview(
            standings,
            filters,
            shown=shown,
            matching=len(found),
            at=at,
            connections=connections,
            connector_names=screens.services.connector_names,
            strips=cells,
        )
        if caller.tenant is None:
            page = replace(page, warnings=[node.clock_warning for node in await screens.nodes() if node.clock_warning])
        rows = (row_of(health.report(states[one.id], at)) for one in found)
        table = Table(name="streams", columns=COLUMNS, rows=rows)
        return Answer(template="overview.html", values={"page": page, "at": at}, twin=twin(page, cells), table=table)

    return [screens.route("/", show)]


def row_of(one: StreamReport) -> tuple[object, ...]:
    """A stream as a line of CSV."""
    counts = one.counts_24h
    return (
        one.connection, one.connector, one.tenant, one.stream, one.partition, one.mode, one.cadence,
        one.status.value, one.sentence, one.complete_at, one.last_record_at, one.next_at,
        counts.created, counts.updated, counts.deleted,
    )  # fmt: skip


def _filters(request: Request) -> Filters:
    query = Query(request)
    filters = Filters(
        status=query.choice("status", [one.value for one in Status]),
        connection=query.text("connection"),
        tenant=query.text("tenant"),
        mode=query.choice("mode", MODES),
        search=query.text("q"),
        page=query.integer("page", low=1, high=PAGE_MAX) or 1,
    )
    finish(query, is_list=True)
    return filters
