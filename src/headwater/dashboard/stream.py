"""`/connections/{key}/streams/{stream}`: how one stream does: its status, its ticks, its runs, its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.routing import Route

from headwater import cron
from headwater.acts.act import stream_words
from headwater.api.access import Caller, visible_connection
from headwater.api.problem import not_found
from headwater.api.query import Query
from headwater.dashboard.address import path
from headwater.dashboard.connection import reports_of
from headwater.dashboard.overview import rows_of
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.dashboard.strip import strips
from headwater.health import StreamReport
from headwater.intention import LIST_LIMIT_MAX, AuditFilter
from headwater.run import Run

RUNS_SHOWN = 20
RUNS_DRAWN = 60  # bars of the two small charts
CHECKPOINTS_SHOWN = 20
TICKS_AHEAD = 5
BAR_STEP = 6
CHART_HEIGHT = 40


@dataclass(frozen=True, kw_only=True)
class Move:
    """A checkpoint put elsewhere by hand."""

    at: datetime
    actor: str
    before: str | None
    after: str | None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run as a bar of a small chart, `CHART_HEIGHT` at the most."""

    run: Run
    x: int
    height: float
    words: str


def routes(screens: Screens) -> list[Route]:
    """The page of a stream, or of one of its partitions."""

    async def show(request: Request, caller: Caller) -> Answer:
        stored = await visible_connection(caller, screens.store, request.path_params["key"])
        query = Query(request)
        partition = query.text("partition") or ""
        finish(query)
        name = request.path_params["stream"]
        own = [one for one in await reports_of(screens, stored) if one.stream == name]
        found = next((one for one in own if one.partition == partition), None)
        if found is None:
            raise not_found("stream")
        cells = await strips(screens.store, [found], screens.clock.now())
        runs = [
            one
            for one in await screens.store.runs(
                connection=stored.key, stream=name, limit=min(RUNS_DRAWN * len(own), LIST_LIMIT_MAX)
            )
            if one.partition == partition
        ][:RUNS_DRAWN]
        by_hand = await moves(screens, found)
        moved = checkpoints(found, runs)[:CHECKPOINTS_SHOWN]
        coming = ahead(found, screens.clock.now())
        values = {
            "stored": stored,
            "report": found,
            "row": rows_of([found], cells)[0],
            "cells": cells.get(found.id, ()),
            "partitions": [one for one in own if len(own) > 1],
            "runs": runs[:RUNS_SHOWN],
            "durations": bars([(one, _seconds(one)) for one in runs], "s"),
            "volumes": bars([(one, float(one.counts.total)) for one in runs], "records"),
            "checkpoints": moved,
            "moves": by_hand,
            "ahead": coming,
            "chart": {"width": RUNS_DRAWN * BAR_STEP, "height": CHART_HEIGHT, "step": BAR_STEP},
            "crumbs": [("Overview", "/"), (stored.key, path("connections", stored.key))],
        }
        twin = {
            "health": found,
            "strip": cells.get(found.id, ()),
            "ticks": [tick for tick, _ in coming],
            "runs": [
                {"id": one.id, "state": one.state, "seconds": _seconds(one), "counts": one.counts} for one in runs
            ],
            "checkpoints": [{"run": one.id, "cursor": one.cursor_after, "at": one.finished_at} for one in moved],
            "moves": by_hand,
        }
        return Answer(template="stream.html", values=values, twin=twin)

    return [screens.route("/connections/{key}/streams/{stream}", show)]


def ahead(report: StreamReport, at: datetime) -> list[tuple[datetime, datetime]]:
    """The next ticks of a poll stream, each in UTC and in the zone of its schedule."""
    if report.schedule is None:
        return []
    found: list[tuple[datetime, datetime]] = []
    tick = at
    for _ in range(TICKS_AHEAD):
        tick = cron.next_tick(report.schedule, report.timezone, tick)
        found.append((tick, tick.astimezone(ZoneInfo(report.timezone))))
    return found


def bars(values: Sequence[tuple[Run, float | None]], unit: str) -> list[Point]:
    """Newest last, each as high as its share of the highest."""
    known = [(run, value) for run, value in values if value is not None]
    most = max((value for _, value in known), default=0.0) or 1.0
    return [
        Point(
            run=run,
            x=place * BAR_STEP,
            height=round(max(value / most * CHART_HEIGHT, 1.0), 1),
            words=f"run {run.id}: {value:,.1f} {unit}" if unit == "s" else f"run {run.id}: {value:,.0f} {unit}",
        )
        for place, (run, value) in enumerate(reversed(known))
    ]


def checkpoints(report: StreamReport, runs: Sequence[Run]) -> list[Run]:
    """The runs that moved the checkpoint, newest first; what an operator set is in the audit."""
    if report.mode == "webhook":
        return []
    return [one for one in runs if one.backfill_id is None and one.cursor_after not in (None, one.cursor_before)]


async def moves(screens: Screens, report: StreamReport) -> list[Move]:
    """The last times that somebody put the checkpoint elsewhere, newest first."""
    if report.mode == "webhook":
        return []
    target = stream_words(report.connection, report.stream, report.partition)
    found = await screens.store.audit_log(AuditFilter(act="checkpoints", target=target), limit=CHECKPOINTS_SHOWN)
    return [
        Move(at=one.at, actor=one.actor, before=one.detail.get("before"), after=one.detail.get("after"))
        for one in found
        if one.target == target
    ]


def _seconds(run: Run) -> float | None:
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()
