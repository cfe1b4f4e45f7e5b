"""`/records` and their versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, selected, visible, visible_connection
from headwater.api.endpoint import Services, endpoint, listing
from headwater.api.operation import AFTER, CONNECTION, LIMIT, TENANT, TYPE, Shape, flag, text
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.api.reveal import change_as, opened
from headwater.record import Record, Version, record_cursor
from headwater.sink import Change, change
from headwater.store import Store

RECORD_PATH = "{connection}/{type}/{id:path}"


class RecordResource:
    """Current records and their history."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        record = Shape(kind=Change, beside={"deleted": bool})
        version = Shape(kind=Change, beside={"stale": bool})
        asked = [CONNECTION, TENANT, TYPE, flag("deleted"), text("search", "Beginning of an id."), AFTER, LIMIT]
        return [
            endpoint(services, "GET", "/records", self.records, query=asked, answer=record.listed(position=int)),
            endpoint(services, "GET", f"/records/{RECORD_PATH}", self.record, answer=record),
            endpoint(services, "GET", f"/versions/{RECORD_PATH}", self.versions, answer=version.listed()),
        ]

    async def records(self, request: Request, caller: Caller) -> Any:
        """Current records. `position` is where the feed stood before this page was read: whoever lists all records
        and then follows `/changes?after=` the first page's position has missed nothing.
        """
        query = Query(request)
        connection, tenant, kind = query.text("connection"), query.text("tenant"), query.text("type")
        deleted, search = query.flag("deleted"), query.text("search")
        after, limit = query.text("after"), query.limit()
        query.done()
        position = (await self._store.changes(after=0, limit=1)).high_water
        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        found = await records_of(self._store, keys, kind=kind, deleted=deleted, search=search, after=after, limit=limit)
        page = listing(found, limit=limit, cursor=record_cursor, position=position)
        connectors = await self._connectors(caller)
        shown = await opened(caller, self._store, self._clock, target="records")
        page["data"] = [_record_entry(one, connectors, shown=shown) for one in found]
        return page

    async def record(self, request: Request, caller: Caller) -> Any:
        """One current record."""
        Query(request).done()
        names = await self._names(request, caller)
        found = await self._store.record(*names)
        if found is None:
            raise not_found("record")
        shown = await opened(caller, self._store, self._clock, target=f"record {'/'.join(names)}")
        return _record_entry(found, await self._connectors(caller), shown=shown)

    async def versions(self, request: Request, caller: Caller) -> Any:
        """The whole history of a record, newest first, stale observations included."""
        Query(request).done()
        names = await self._names(request, caller)
        found = await self._store.versions(*names)
        if not found:
            raise not_found("record")
        connectors = await self._connectors(caller)
        shown = await opened(caller, self._store, self._clock, target=f"record {'/'.join(names)}")
        return {"data": [_version_entry(one, connectors, shown=shown) for one in found], "next_cursor": None}

    async def _names(self, request: Request, caller: Caller) -> tuple[str, str, str]:
        parameters = request.path_params
        try:
            stored = await visible_connection(caller, self._store, parameters["connection"])
        except ProblemError:
            raise not_found("record") from None
        return stored.key, parameters["type"], parameters["id"]

    async def _connectors(self, caller: Caller) -> dict[str, str]:
        return {key: one.connector for key, one in (await visible(caller, self._store)).items()}


async def records_of(
    store: Store,
    keys: Sequence[str] | None,
    *,
    kind: str | None,
    deleted: bool | None,
    search: str | None,
    after: str | None,
    limit: int,
) -> list[Record]:
    """Records of the connections in `keys`, or of all when it is None; see `RecordStore.records`.

    Raises `ProblemError` 400 where `after` is no cursor of theirs.
    """
    _check_cursor(after)
    found: list[Record] = []
    for key in [None] if keys is None else _from(keys, after):
        found += await store.records(
            connection=key,
            type=kind,
            deleted=deleted,
            search=search,
            after=_within(after, key),
            limit=limit - len(found),
        )
        if len(found) >= limit:
            break
    return found


def _record_entry(record: Record, connectors: Mapping[str, str], *, shown: bool) -> dict[str, Any]:
    return {"deleted": record.deleted, **_change_entry(record.current, connectors, shown=shown)}


def _version_entry(version: Version, connectors: Mapping[str, str], *, shown: bool) -> dict[str, Any]:
    return {"stale": version.stale, **_change_entry(version, connectors, shown=shown)}


def _change_entry(version: Version, connectors: Mapping[str, str], *, shown: bool) -> dict[str, Any]:
    return msgspec.structs.asdict(change_as(change(version, connectors), shown=shown))


def _check_cursor(after: str | None) -> None:
    if after is None:
        return
    try:
        parts = json.loads(after)
    except (ValueError, RecursionError):
        parts = None
    if not (isinstance(parts, list) and len(parts) == 3 and all(isinstance(part, str) for part in parts)):
        raise ProblemError(400, "`after` is no cursor of this list.", code="request.parameters")


def _from(keys: Sequence[str], after: str | None) -> Sequence[str]:
    return keys if after is None else [key for key in keys if key >= json.loads(after)[0]]


def _within(after: str | None, key: str | None) -> str | None:
    """The cursor, where it lies in this connection: the ones after it begin at their beginning."""
    return after if after is None or key in (None, json.loads(after)[0]) else None
