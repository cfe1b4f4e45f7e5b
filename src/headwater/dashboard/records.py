"""`/records`, those of a connection, and `/records/{connection}/{type}/{source_id}`: what is kept, and its history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import listing
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.api.records import records_of
from headwater.api.reveal import reveal
from headwater.dashboard.address import path
from headwater.dashboard.connection import head, of_all
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.record import Record, Version, record_cursor

COLUMNS = ("connection", "type", "source_id", "version", "deleted", "as_of", "observed_at", "stream", "origin")
VERSIONS_SHOWN = 100

_Fields = dict[str, msgspec.Raw]


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """A field that differs between two versions; "" where it is absent."""

    name: str  # its place: `address.city`, `items[2]`
    before: str
    after: str


def routes(screens: Screens) -> list[Route]:
    """The list of all, that of a connection, and one record."""
    made = _Records(screens)
    return [
        screens.route("/records", made.all),
        screens.route("/connections/{key}/records", made.of_connection),
        screens.route("/records/{connection}/{type}/{id:path}", made.one),
    ]


class _Records:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._store = screens.store

    async def all(self, request: Request, caller: Caller) -> Answer:
        """Of every connection that the caller may see."""
        query = Query(request)
        return await self._list(query, *await of_all(self._screens, query, caller), "records")

    async def of_connection(self, request: Request, caller: Caller) -> Answer:
        """Of one connection."""
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        values = await head(self._screens, stored, "records")
        return await self._list(Query(request), [stored.key], values, f"records-{stored.key}")

    async def one(self, request: Request, caller: Caller) -> Answer:
        """One record: its versions, where each came from, and what changed between two of them."""
        names = await self._names(request, caller)
        query = Query(request)
        asked = query.flag("reveal") or False
        chosen = query.integer("version", low=1)
        finish(query)
        record, versions = await self._store.record(*names), await self._store.versions(*names)
        if record is None or not versions:
            raise not_found("record")
        target = f"record {'/'.join(names)}"
        shown = await reveal(caller, self._store, self._screens.clock, target=target, asked=asked)
        version = next((one for one in versions if one.version == (chosen or record.version)), None)
        if version is None:
            raise not_found("version")
        before = next((one for one in versions if one.version < version.version), None)
        values = {
            "record": record, "versions": versions[:VERSIONS_SHOWN], "version": version, "before": before,
            "shown": shown, "may_reveal": caller.may("payloads"),
            "payload": msgspec.json.format(bytes(version.payload), indent=2).decode() if shown else "",
            "changes": compared(before, version) if shown else [],
            "left_out": max(0, len(versions) - VERSIONS_SHOWN),
            "crumbs": [("Records", "/records"), (record.connection, path("connections", record.connection))],
        }  # fmt: skip
        twin = {
            "connection": record.connection, "type": record.type, "source_id": record.source_id,
            "deleted": record.deleted, "version": record.version,
            "payload": version.payload if shown else None,
            "versions": [_version_entry(one) for one in versions],
            "changes": values["changes"],
        }  # fmt: skip
        return Answer(template="record.html", values=values, twin=twin)

    async def _names(self, request: Request, caller: Caller) -> tuple[str, str, str]:
        given = request.path_params
        try:
            stored = await visible_connection(caller, self._store, given["connection"])
        except ProblemError:
            raise not_found("record") from None
        return stored.key, given["type"], given["id"]

    async def _list(self, query: Query, keys: Sequence[str] | None, values: Mapping[str, Any], name: str) -> Answer:
        kind, search, deleted = query.text("type"), query.text("q"), query.flag("deleted")
        after, limit = query.text("after"), query.limit()
        finish(query, is_list=True)
        found = await records_of(self._store, keys, kind=kind, search=search, deleted=deleted, after=after, limit=limit)
        twin = listing([_entry(one) for one in found], limit=limit, cursor=lambda one: one["cursor"])
        kinds = sorted({one for key, one, _ in await self._store.populations() if keys is None or key in keys})
        given = {
            "records": found, "type": kind, "types": kinds, "search": search, "deleted": deleted,
            "next_cursor": twin["next_cursor"], "stored": None,
        }  # fmt: skip
        table = Table(name=name, columns=COLUMNS, rows=[[_entry(one)[column] for column in COLUMNS] for one in found])
        return Answer(template="records.html", values={**given, **values}, twin=twin, table=table)


def compared(before: Version | None, after: Version) -> list[FieldChange]:
    """The fields that differ, by name; numbers keep every digit."""
    old = _flat(before) if before is not None else {}
    new = _flat(after)
    return [
        FieldChange(name=name, before=old.get(name, ""), after=new.get(name, ""))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flat(version: Version) -> dict[str, str]:
    return dict(_leaves(msgspec.json.decode(bytes(version.payload), type=_Fields), ""))


def _leaves(fields: Mapping[str, msgspec.Raw], place: str) -> Iterator[tuple[str, str]]:
    for name, raw in fields.items():
        here = f"{place}.{name}" if place else name
        text = bytes(raw).decode()
        if text.startswith("{") and text != "{}":
            yield from _leaves(msgspec.json.decode(raw, type=_Fields), here)
        else:
            yield here, text


def _entry(one: Record) -> dict[str, Any]:
    current = one.current
    return {
        "connection": one.connection, "type": one.type, "source_id": one.source_id, "version": one.version,
        "deleted": one.deleted, "as_of": current.as_of, "observed_at": current.observed_at,
        "stream": current.stream, "origin": current.origin, "cursor": record_cursor(one),
    }  # fmt: skip


def _version_entry(one: Version) -> dict[str, Any]:
    return {
        "version": one.version, "operation": one.operation, "stale": one.stale, "as_of": one.as_of,
        "observed_at": one.observed_at, "stream": one.stream, "origin": one.origin, "run_id": one.run_id,
        "page": one.page, "delivery_id": one.delivery_id, "connector_version": one.connector_version, "hash": one.hash,
    }  # fmt: skip
