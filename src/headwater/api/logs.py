"""`/logs`: what routes logged, over all connections that the caller may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, selected
from headwater.api.endpoint import Services, endpoint, listing, newest
from headwater.api.operation import AFTER_ID, CONNECTION, LIMIT, STREAM, TENANT, Shape, choice, number
from headwater.api.query import Query
from headwater.log_line import LEVELS, LINES_KEPT, LogFilter, LogLine, LogStore


class LogResource:
    """Log lines as stored."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store

    def routes(self) -> list[Route]:
        """The route of this resource."""
        owner = [number("run_id", "Of this run."), number("delivery_id", "Of this delivery.")]
        filters = [STREAM, *owner, choice("level", tuple(LEVELS))]
        return [
            endpoint(
                self._services, "GET", "/logs", self.logs, query=[CONNECTION, TENANT, *filters, AFTER_ID, LIMIT],
                answer=Shape(kind=LogLine).listed(),
            )
        ]  # fmt: skip

    async def logs(self, request: Request, caller: Caller) -> Any:
        """Lines that routes logged, newest first; a level means those above it, too."""
        query = Query(request)
        connection, tenant = query.text("connection"), query.text("tenant")
        which = filter_of(query)
        after, limit = query.integer("after"), query.limit()
        query.done()
        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        found = await lines_of(self._store, keys, which, after=after, limit=limit)
        return listing(found, limit=limit, cursor=lambda one: one.id)


def filter_of(query: Query) -> LogFilter:
    """The lines that a query asks for, its connection apart."""
    return LogFilter(
        stream=query.text("stream"),
        run_id=query.integer("run_id"),
        delivery_id=query.integer("delivery_id"),
        level=query.choice("level", tuple(LEVELS)),
    )


async def lines_of(
    store: LogStore, keys: Sequence[str] | None, which: LogFilter, *, after: int | None, limit: int
) -> list[LogLine]:
    """Lines of these connections, or of all when it is None, newest first."""

    async def fetch(key: str | None) -> Sequence[LogLine]:
        return await store.log_lines(replace(which, connection=key), after=after, limit=limit)

    return await newest(keys, fetch, limit=limit)


async def said(store: LogStore, which: LogFilter) -> list[LogLine]:
    """What a run or a delivery logged, first to last: all that is kept of a run."""
    return list(reversed(await store.log_lines(which, limit=LINES_KEPT)))
