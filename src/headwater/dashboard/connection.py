"""`/connections/{key}`: one authorised account, its streams worst first; and the head that all pages of it share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater import health
from headwater.api.access import Caller, selected, visible, visible_connection
from headwater.api.endpoint import entry_of
from headwater.api.query import Query
from headwater.dashboard.address import path
from headwater.dashboard.csv import Table
from headwater.dashboard.home import COLUMNS, row_of
from headwater.dashboard.overview import rows_of
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.dashboard.strip import strips
from headwater.health import StreamReport
from headwater.intention import StoredConnection

# The parts of a connection: word, last segment of the path.
PARTS = (
    ("Streams", ""), ("Runs", "runs"), ("Deliveries", "deliveries"), ("Records", "records"),
    ("Backfills", "backfills"), ("Logs", "logs"), ("Activity", "activity"), ("Settings", "settings"),
)  # fmt: skip


def routes(screens: Screens) -> list[Route]:
    """The page of a connection."""

    async def show(request: Request, caller: Caller) -> Answer:
        stored = await visible_connection(caller, screens.store, request.path_params["key"])
        finish(Query(request), is_list=True)
        found = health.worst_first(await reports_of(screens, stored))
        cells = await strips(screens.store, found, screens.clock.now())
        values = {
            **await head(screens, stored, "", reports=found),
            "rows": rows_of(found, cells),
            "origin": screens.origin(stored.connector),
            "project": screens.project(stored.connector),
        }
        twin = {
            "connection": entry_of(stored, without=("settings",)),
            "summary": values["summary"],
            "webhook_url": values["webhook_url"],
            "streams": found,
        }
        table = Table(name=f"streams-{stored.key}", columns=COLUMNS, rows=[row_of(one) for one in found])
        return Answer(template="connection.html", values=values, twin=twin, table=table)

    return [screens.route("/connections/{key}", show)]


async def of_all(screens: Screens, query: Query, caller: Caller) -> tuple[Sequence[str] | None, Mapping[str, Any]]:
    """For a list over all connections that the caller may see, or the one that its query names: their keys as
    `selected` gives them, and what the page needs to choose among them.
    """
    chosen = query.text("connection")
    keys = await selected(caller, screens.store, connection=chosen, tenant=None)
    names = sorted(await visible(caller, screens.store))
    return keys, {"connections": names, "connection": chosen, "crumbs": ()}


async def reports_of(screens: Screens, stored: StoredConnection) -> list[StreamReport]:
    """The streams of a connection with their verdicts."""
    at = screens.clock.now()
    return health.reports(await screens.store.streams(at=at, connection=stored.key), at)


async def head(
    screens: Screens, stored: StoredConnection, part: str, *, reports: Sequence[StreamReport] | None = None
) -> Mapping[str, Any]:
    """What stands above every part of a connection: its sentence, its tabs, and why it is paused."""
    if reports is None:
        reports = await reports_of(screens, stored)
    name = screens.services.connector_name(stored.connector)
    tabs = []
    for word, segment in PARTS:
        url = path("connections", stored.key, *([segment] if segment else []))
        if screens.reaches(url):
            tabs.append((word, url, segment == part, None))
    return {
        "stored": stored,
        "summary": health.connection_summary(name, stored.key, reports),
        "tabs": tabs,
        "webhook_url": screens.webhook_url(stored),
        "crumbs": [("Overview", "/"), *([(stored.key, path("connections", stored.key))] if part else [])],
    }
