"""`/connections/{key}/activity`: who did what to a connection, its streams, runs and settings."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import entry_of
from headwater.api.query import Query
from headwater.dashboard.audit import COLUMNS, facts_of, row_of, words_of
from headwater.dashboard.connection import head
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.intention import LIST_LIMIT, LIST_LIMIT_MAX, AuditEntry, AuditFilter

LOOKS_MAX = 20  # reads of the audit for one page: other connections' names may begin alike


def routes(screens: Screens) -> list[Route]:
    """The list of a connection."""

    async def show(request: Request, caller: Caller) -> Answer:
        stored = await visible_connection(caller, screens.store, request.path_params["key"])
        query = Query(request)
        after, limit = query.integer("after", low=1), query.limit(LIST_LIMIT)
        finish(query, is_list=True)
        found: list[AuditEntry] = []
        position = after
        for _ in range(LOOKS_MAX):
            batch = await screens.store.audit_log(AuditFilter(target=stored.key), after=position, limit=LIST_LIMIT_MAX)
            found += [one for one in batch if one.target == stored.key or one.target.startswith(f"{stored.key} ")]
            if len(found) >= limit or len(batch) < LIST_LIMIT_MAX:
                break
            position = batch[-1].id
        shown = found[:limit]
        following = str(shown[-1].id) if len(found) > limit else None
        values: dict[str, Any] = {
            **await head(screens, stored, "activity"),
            "entries": [(one, words_of(one.act), facts_of(one.detail)) for one in shown],
            "next_cursor": following,
        }
        twin = {"data": [entry_of(one) for one in shown], "next_cursor": following}
        table = Table(name=f"activity-{stored.key}", columns=COLUMNS, rows=[row_of(one) for one in shown])
        return Answer(template="activity.html", values=values, twin=twin, table=table)

    return [screens.route("/connections/{key}/activity", show, scope="operate")]
