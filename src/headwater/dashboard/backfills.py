"""`/backfills`, `/connections/{key}/backfills` and `/backfills/{id}`: spans of the past, and how far each has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater import backfill as backfills
from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import entry_of, listing, newest
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.dashboard.address import path
from headwater.dashboard.connection import head, of_all
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.run import Backfill, BackfillWindow, WindowState

COLUMNS = (
    "id", "connection", "stream", "partition", "start", "end", "state", "windows", "done", "failed", "records",
    "created_at", "finished_at",
)  # fmt: skip
MAP_WIDTH = 720
MAP_CELLS_MAX = 180
WINDOWS_SHOWN = 200
BACKFILLS_MAX = 2**31
# Of the states in one cell of a folded map, the one that needs a look is shown.
_FIRST: Sequence[WindowState] = ("failed", "running", "todo", "cancelled", "done")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Some neighbouring windows of a map, of `MAP_WIDTH`."""

    x: float
    width: float
    state: WindowState
    words: str


def routes(screens: Screens) -> list[Route]:
    """The list of all, that of a connection, and one backfill."""
    made = _Backfills(screens)
    return [
        screens.route("/backfills", made.all),
        screens.route("/connections/{key}/backfills", made.of_connection),
        screens.route("/backfills/{id:int}", made.one),
    ]


class _Backfills:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._store = screens.store

    async def all(self, request: Request, caller: Caller) -> Answer:
        """Of every connection that the caller may see."""
        query = Query(request)
        return await self._list(query, *await of_all(self._screens, query, caller), "backfills")

    async def of_connection(self, request: Request, caller: Caller) -> Answer:
        """Of one connection."""
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        values = await head(self._screens, stored, "backfills")
        return await self._list(Query(request), [stored.key], values, f"backfills-{stored.key}")

    async def one(self, request: Request, caller: Caller) -> Answer:
        """One backfill: its map, its rate and when it will be done, and its windows."""
        finish(Query(request))
        found = await self._store.backfill(request.path_params["id"])
        if found is None:
            raise not_found("backfill")
        try:
            await visible_connection(caller, self._store, found.connection)
        except ProblemError:
            raise not_found("backfill") from None
        windows = await self._store.windows(found.id)
        progress = backfills.progress(found, windows, self._screens.clock.now())
        # What needs a look comes first; the map has all of them in the order of time.
        order = {state: place for place, state in enumerate(("failed", "running", "cancelled", "todo", "done"))}
        listed = sorted(enumerate(windows, 1), key=lambda one: (order[one[1].state], one[0]))
        values = {
            "backfill": found, "progress": progress, "cells": cells(windows), "map_width": MAP_WIDTH,
            "windows": listed[:WINDOWS_SHOWN], "left_out": max(0, len(windows) - WINDOWS_SHOWN),
            "failed": sum(one.state == "failed" for one in windows),
            "crumbs": [("Backfills", "/backfills"), (found.connection, path("connections", found.connection))],
        }  # fmt: skip
        twin = entry_of(found) | {"progress": progress, "share": progress.share, "map": windows}
        return Answer(template="backfill.html", values=values, twin=twin)

    async def _list(self, query: Query, keys: Sequence[str] | None, values: Mapping[str, Any], name: str) -> Answer:
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)

        async def fetch(key: str | None) -> Sequence[Backfill]:
            return await self._store.backfills(connection=key)

        every = await newest(keys, fetch, limit=BACKFILLS_MAX)
        found = [one for one in every if after is None or one.id < after][:limit]
        twin = listing(found, limit=limit, cursor=lambda one: one.id)
        given = {"backfills": found, "next_cursor": twin["next_cursor"], "stored": None}
        table = Table(name=name, columns=COLUMNS, rows=[_row(one) for one in found])
        return Answer(template="backfills.html", values={**given, **values}, twin=twin, table=table)


def cells(windows: Sequence[BackfillWindow]) -> list[Cell]:
    """The map in the order of time; neighbours share a cell where there are more than `MAP_CELLS_MAX`."""
    count = min(len(windows), MAP_CELLS_MAX)
    bounds = [len(windows) * cell // count for cell in range(count + 1)] if count else []
    found = []
    for place, (first, last) in enumerate(pairwise(bounds)):
        inside = windows[first:last]
        states = {one.state for one in inside}
        state = next(one for one in _FIRST if one in states)
        span = f"{inside[0].window.start:%-d %b %Y} to {inside[-1].window.end:%-d %b %Y}"
        told = ", ".join(f"{sum(one.state == each for one in inside)} {each}" for each in _FIRST if each in states)
        words = state if len(inside) == 1 else told
        x, end = place * MAP_WIDTH / count, (place + 1) * MAP_WIDTH / count
        found.append(Cell(x=round(x, 2), width=round(max(end - x - 1, 0.8), 2), state=state, words=f"{span}: {words}"))
    return found


def _row(one: Backfill) -> tuple[Any, ...]:
    return (
        one.id, one.connection, one.stream, one.partition, one.span.start, one.span.end, one.state,
        sum(one.windows.values()), one.windows.get("done", 0), one.windows.get("failed", 0), one.counts.total,
        one.created_at, one.finished_at,
    )  # fmt: skip
