"""`/runs`, `/backfills`, and one page of a stream on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, selected, visible_connection
from headwater.api.endpoint import Services, endpoint, entry_of, listing, newest
from headwater.api.logs import said
from headwater.api.operation import (
    AFTER_ID,
    CONNECTION,
    LIMIT,
    PARTITION,
    STREAM,
    TENANT,
    Shape,
    choice,
    instant,
    number,
    text,
)
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.errors import UsageError
from headwater.log_line import LogFilter, LogLine
from headwater.run import CURSOR_BYTES_MAX, Backfill, BackfillWindow, PageRow, RequestLog, Run, RunState, Window

PAGE_RECORDS_MAX = 10_000  # of one page on demand


class RunResource:
    """Runs and backfills as stored, and the sync route over HTTP."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        state = choice("state", [one.value for one in RunState])
        run, backfill = Shape(kind=Run), Shape(kind=Backfill)
        pages = {"page_list": list[PageRow], "requests": list[RequestLog], "log": list[LogLine]}
        routes = [
            endpoint(
                services, "GET", "/runs", self.runs,
                query=[CONNECTION, TENANT, STREAM, state, number("backfill_id"), AFTER_ID, LIMIT], answer=run.listed(),
            ),
            endpoint(services, "GET", "/runs/{id:int}", self.run, answer=Shape(kind=Run, beside=pages)),
            endpoint(
                services, "GET", "/backfills", self.backfills, query=[CONNECTION, TENANT, STREAM, AFTER_ID, LIMIT],
                answer=backfill.listed(),
            ),
            endpoint(
                services, "GET", "/backfills/{id:int}", self.backfill,
                answer=Shape(kind=Backfill, beside={"map": list[BackfillWindow]}),
            ),
        ]  # fmt: skip
        if self._services.one_page is not None:
            span = [instant("from", "Beginning of a span to ask for."), instant("to", "Its end.")]
            limit = number("limit", "Records at most.", low=1, high=PAGE_RECORDS_MAX)
            page = {
                "stream": str, "imported": int, "unchanged": int, "failed": int, "cursor": str | None, "hasMore": bool,
            }  # fmt: skip
            routes.append(
                endpoint(
                    services, "POST", "/connections/{key}/sync/{stream}", self.sync,
                    query=[*span, text("cursor", "Where to go on."), PARTITION, limit], answer=Shape(beside=page),
                )
            )  # fmt: skip
        return list(routes)

    async def runs(self, request: Request, caller: Caller) -> Any:
        """Runs, newest first."""
        query = Query(request)
        connection, tenant, stream = query.text("connection"), query.text("tenant"), query.text("stream")
        state = query.choice("state", [one.value for one in RunState])
        backfill_id, after, limit = query.integer("backfill_id"), query.integer("after"), query.limit()
        query.done()

        async def fetch(key: str | None) -> Sequence[Run]:
            return await self._store.runs(
                connection=key,
                stream=stream,
                state=RunState(state) if state else None,
                backfill_id=backfill_id,
                after=after,
                limit=limit,
            )

        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        found = await newest(keys, fetch, limit=limit)
        return listing([replace(run, traceback=None) for run in found], limit=limit, cursor=lambda run: run.id)

    async def run(self, request: Request, caller: Caller) -> Any:
        """One run with its pages, what it asked of the provider, and what it logged."""
        Query(request).done()
        found = await self._store.run(request.path_params["id"])
        if found is None:
            raise not_found("run")
        await self._hide("run", found.connection, caller)
        pages, requests = await self._store.pages(found.id), await self._store.requests(found.id)
        return entry_of(found) | {
            "page_list": pages,
            "requests": requests,
            "log": await said(self._store, LogFilter(run_id=found.id)),
        }

    async def backfills(self, request: Request, caller: Caller) -> Any:
        """Backfills, newest first."""
        query = Query(request)
        connection, tenant, stream = query.text("connection"), query.text("tenant"), query.text("stream")
        after, limit = query.integer("after"), query.limit()
        query.done()
        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        fetch = partial(self._backfills_of, stream=stream)
        found = await newest(keys, fetch, limit=2**31)
        rest = [one for one in found if after is None or one.id < after]
        return listing(rest[:limit], limit=limit, cursor=lambda one: one.id)

    async def _backfills_of(self, key: str | None, *, stream: str | None) -> Any:
        return await self._store.backfills(connection=key, stream=stream)

    async def backfill(self, request: Request, caller: Caller) -> Any:
        """One backfill with its interval map."""
        Query(request).done()
        found = await self._store.backfill(request.path_params["id"])
        if found is None:
            raise not_found("backfill")
        await self._hide("backfill", found.connection, caller)
        return entry_of(found) | {"map": await self._store.windows(found.id)}

    async def sync(self, request: Request, caller: Caller) -> Any:
        """One page on demand: `{stream, imported, unchanged, failed, cursor, hasMore}`."""
        query = Query(request)
        start, end = query.instant("from"), query.instant("to")
        cursor, partition = query.text("cursor"), query.text("partition") or ""
        limit = query.integer("limit", low=1, high=PAGE_RECORDS_MAX)
        query.done()
        if cursor and len(cursor.encode()) > CURSOR_BYTES_MAX:
            raise ProblemError(400, f"`cursor` is longer than {CURSOR_BYTES_MAX} bytes.", code="request.parameters")
        window = self._window(start, end)
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        assert self._services.one_page is not None, "the route is mounted with it alone"
        try:
            page = await self._services.one_page(
                stored.key,
                request.path_params["stream"],
                cursor=cursor,
                window=window,
                limit=limit,
                partition=partition,
            )
        except UsageError as error:
            raise ProblemError(409, error.message, code=error.code, hint=error.hint) from error
        return {
            "stream": page.stream,
            "imported": page.imported,
            "unchanged": page.unchanged,
            "failed": page.failed,
            "cursor": page.cursor,
            "hasMore": page.has_more,
        }

    def _window(self, start: datetime | None, end: datetime | None) -> Window | None:
        if start is None and end is None:
            return None
        end = end or self._clock.now()
        if start is None or start >= end:
            raise ProblemError(400, "`from` does not lie before `to`.", code="request.parameters")
        return Window(start, end)

    async def _hide(self, what: str, connection: str, caller: Caller) -> None:
        """Answer for what belongs to another tenant as for what does not exist (Invariant 10)."""
        try:
            await visible_connection(caller, self._store, connection)
        except ProblemError:
            raise not_found(what) from None
