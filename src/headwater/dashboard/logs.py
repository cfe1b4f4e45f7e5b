"""`/connections/{key}/logs`: what the routes of a connection logged; and the same as a part of a run or a delivery."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import listing
from headwater.api.logs import filter_of, lines_of
from headwater.api.query import Query
from headwater.dashboard.connection import head
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.log_line import LEVELS, LogLine

COLUMNS = ("id", "at", "level", "stream", "partition", "run_id", "delivery_id", "message")
LINES_SHOWN = 200  # of one run or delivery; the twin has them all


def routes(screens: Screens) -> list[Route]:
    """The list of a connection."""

    async def show(request: Request, caller: Caller) -> Answer:
        stored = await visible_connection(caller, screens.store, request.path_params["key"])
        query = Query(request)
        which = filter_of(query)
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)
        found = await lines_of(screens.store, [stored.key], which, after=after, limit=limit)
        twin = listing(found, limit=limit, cursor=lambda one: one.id)
        streams = sorted({one.stream for one in await screens.store.streams(
            at=screens.clock.now(), connection=stored.key)})  # fmt: skip
        values = {
            **await head(screens, stored, "logs"), "log": found, "log_left_out": 0, "which": which,
            "streams": streams, "levels": tuple(LEVELS), "next_cursor": twin["next_cursor"],
        }  # fmt: skip
        rows = [[getattr(one, name) for name in COLUMNS] for one in found]
        table = Table(name=f"logs-{stored.key}", columns=COLUMNS, rows=rows)
        return Answer(template="logs.html", values=values, twin=twin, table=table)

    return [screens.route("/connections/{key}/logs", show)]


def log_values(log: Sequence[LogLine]) -> dict[str, Any]:
    """What `log_list.html` needs for the lines of one run or delivery, first to last."""
    return {"levels": (), "log": log[-LINES_SHOWN:], "log_left_out": max(0, len(log) - LINES_SHOWN)}
