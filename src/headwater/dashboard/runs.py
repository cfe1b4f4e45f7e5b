"""`/connections/{key}/runs` and `/runs/{id}`: what was executed, when, with what, and what it asked of the provider."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import entry_of, listing
from headwater.api.logs import said
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.dashboard.address import path
from headwater.dashboard.connection import head
from headwater.dashboard.csv import Table
from headwater.dashboard.logs import log_values
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.log_line import LogFilter
from headwater.record import QuarantinedRecord
from headwater.run import PageRow, RequestLog, Run, RunState

COLUMNS = (
    "id", "stream", "partition", "trigger", "state", "attempt", "scheduled_at", "started_at", "finished_at", "pages",
    "created", "updated", "unchanged", "deleted", "quarantined", "error_code", "error",
)  # fmt: skip
PAGES_SHOWN = 200  # of one run; the twin has them all
REQUESTS_SHOWN = 200
QUARANTINE_LOOKED_AT = 200
CHART_WIDTH = 600


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A page in the chart of its run: where it begins and how wide it is, of `CHART_WIDTH`."""

    page: PageRow
    x: float
    width: float
    seconds: float


def routes(screens: Screens) -> list[Route]:
    """The list of a connection, and one run."""

    async def runs(request: Request, caller: Caller) -> Answer:
        stored = await visible_connection(caller, screens.store, request.path_params["key"])
        query = Query(request)
        stream, state = query.text("stream"), query.choice("state", [one.value for one in RunState])
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)
        found = await screens.store.runs(
            connection=stored.key, stream=stream, state=RunState(state) if state else None, after=after, limit=limit
        )
        twin = listing([replace(one, traceback=None) for one in found], limit=limit, cursor=lambda one: one.id)
        streams = sorted({one.stream for one in await screens.store.streams(
            at=screens.clock.now(), connection=stored.key)})  # fmt: skip
        values = {
            **await head(screens, stored, "runs"), "runs": found, "stream": stream, "state": state,
            "streams": streams, "states": [one.value for one in RunState], "next_cursor": twin["next_cursor"],
        }  # fmt: skip
        table = Table(name=f"runs-{stored.key}", columns=COLUMNS, rows=[_row(one) for one in found])
        return Answer(template="runs.html", values=values, twin=twin, table=table)

    async def run(request: Request, caller: Caller) -> Answer:
        found = await screens.store.run(request.path_params["id"])
        if found is None:
            raise not_found("run")
        try:
            stored = await visible_connection(caller, screens.store, found.connection)
        except ProblemError:
            raise not_found("run") from None
        finish(Query(request))
        pages, requests = await screens.store.pages(found.id), await screens.store.requests(found.id)
        failed = [
            one
            for one in await screens.store.quarantined(
                connection=found.connection, stream=found.stream, state=None, limit=QUARANTINE_LOOKED_AT
            )
            if one.run_id == found.id
        ]
        log = await said(screens.store, LogFilter(run_id=found.id))
        values = _run_values(found, pages, requests, failed, at=screens.clock.now()) | log_values(log)
        crumbs = [
            ("Overview", "/"), (stored.key, path("connections", stored.key)),
            ("Runs", path("connections", stored.key, "runs")),
        ]  # fmt: skip
        twin = entry_of(found) | {
            "page_list": pages, "requests": requests, "log": log, "quarantined": [one.id for one in failed],
        }  # fmt: skip
        return Answer(template="run.html", values=values | {"crumbs": crumbs}, twin=twin)

    return [screens.route("/connections/{key}/runs", runs), screens.route("/runs/{id:int}", run)]


def chart(pages: Sequence[PageRow]) -> list[Bar]:
    """The pages over the time from the first one's start to the last one's commit."""
    if not pages:
        return []
    start = min(one.started_at for one in pages)
    whole = max((max(one.committed_at for one in pages) - start).total_seconds(), 1e-6)
    bars = []
    for one in pages:
        seconds = (one.committed_at - one.started_at).total_seconds()
        x = (one.started_at - start).total_seconds() / whole * CHART_WIDTH
        width = max(seconds / whole * CHART_WIDTH, 1.0)
        bars.append(Bar(page=one, x=round(min(x, CHART_WIDTH - 1.0), 1), width=round(width, 1), seconds=seconds))
    return bars


def command(run: Run) -> str:
    """The same again, on a command line."""
    words = ["headwater", "run", run.connection, run.stream]
    if run.partition:
        words += ["--partition", run.partition]
    return shlex.join(words)


def _run_values(
    found: Run,
    pages: Sequence[PageRow],
    requests: Sequence[RequestLog],
    failed: Sequence[QuarantinedRecord],
    *,
    at: datetime,
) -> dict[str, Any]:
    ended = found.finished_at or at
    return {
        "run": found,
        "took": (ended - found.started_at).total_seconds() if found.started_at else None,
        "bars": chart(pages[:PAGES_SHOWN]),
        "pages_left_out": max(0, len(pages) - PAGES_SHOWN),
        "requests": requests[-REQUESTS_SHOWN:],
        "requests_left_out": max(0, len(requests) - REQUESTS_SHOWN),
        "failed": failed,
        "failed_left_out": max(0, found.counts.quarantined - len(failed)),
        "command": command(found),
        "chart_width": CHART_WIDTH,
    }


def _row(one: Run) -> tuple[Any, ...]:
    return (
        one.id, one.stream, one.partition, one.trigger, one.state.value, one.attempt, one.scheduled_at,
        one.started_at, one.finished_at, one.pages, one.counts.created, one.counts.updated, one.counts.unchanged,
        one.counts.deleted, one.counts.quarantined, one.error_code, one.error,
    )  # fmt: skip
