"""`/quarantine` and `/quarantine/{id}`: records that did not fit their type, kept until somebody says what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.deliveries import QUARANTINE_STATES
from headwater.api.endpoint import entry_of, listing, newest
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.api.reveal import quarantined_as, reveal
from headwater.dashboard.address import path
from headwater.dashboard.connection import of_all
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.record import QuarantinedRecord

COLUMNS = (
    "id", "connection", "stream", "type", "source_id", "idempotency_key", "state", "reason", "as_of", "created_at",
    "run_id", "delivery_id",
)  # fmt: skip


def routes(screens: Screens) -> list[Route]:
    """The list, and one record."""
    made = _Quarantine(screens)
    return [screens.route("/quarantine", made.all), screens.route("/quarantine/{id:int}", made.one)]


class _Quarantine:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._store = screens.store

    async def all(self, request: Request, caller: Caller) -> Answer:
        """Of every connection that the caller may see, newest first."""
        query = Query(request)
        keys, values = await of_all(self._screens, query, caller)
        stream = query.text("stream")
        state = query.choice("state", (*QUARANTINE_STATES, "all")) or "waiting"
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)

        async def fetch(key: str | None) -> Sequence[QuarantinedRecord]:
            wanted = None if state == "all" else state
            return await self._store.quarantined(connection=key, stream=stream, state=wanted, after=after, limit=limit)

        found = [quarantined_as(one, shown=False) for one in await newest(keys, fetch, limit=limit)]
        twin = listing(found, limit=limit, cursor=lambda one: one.id)
        given = {
            "records": found, "stream": stream, "state": state, "states": (*QUARANTINE_STATES, "all"),
            "next_cursor": twin["next_cursor"], "matching": {"connection": values["connection"], "stream": stream},
        }  # fmt: skip
        rows = [[getattr(one, name) for name in COLUMNS] for one in found]
        table = Table(name="quarantine", columns=COLUMNS, rows=rows)
        return Answer(template="quarantine.html", values={**values, **given}, twin=twin, table=table)

    async def one(self, request: Request, caller: Caller) -> Answer:
        """One record: why it was set aside, what it was, and where it came from."""
        query = Query(request)
        asked = query.flag("reveal") or False
        finish(query)
        wanted = request.path_params["id"]
        listed = await self._store.quarantined(state=None, after=wanted + 1, limit=1)
        found = next((one for one in listed if one.id == wanted), None)
        if found is None:
            raise not_found("quarantined record")
        try:
            await visible_connection(caller, self._store, found.connection)
        except ProblemError:
            raise not_found("quarantined record") from None
        shown = await reveal(
            caller, self._store, self._screens.clock, target=f"quarantined record {found.id}", asked=asked
        )
        kept = quarantined_as(found, shown=shown)
        values: dict[str, Any] = {
            "record": kept, "shown": shown, "payload": _formatted(kept.payload) if shown else "",
            "may_reveal": caller.may("payloads"),
            "crumbs": [("Quarantine", "/quarantine"), (found.connection, path("connections", found.connection))],
        }  # fmt: skip
        return Answer(template="quarantined.html", values=values, twin=entry_of(kept))


def _formatted(payload: str) -> str:
    try:
        return msgspec.json.format(payload, indent=2)
    except msgspec.DecodeError:
        return payload
