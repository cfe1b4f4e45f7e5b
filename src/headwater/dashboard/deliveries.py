"""`/deliveries`, `/connections/{key}/deliveries` and `/deliveries/{id}`: requests of providers, as they came."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible_connection
from headwater.api.endpoint import entry_of, listing, newest
from headwater.api.logs import said
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query
from headwater.api.reveal import delivery_as, rejection_as, reveal
from headwater.dashboard.address import path
from headwater.dashboard.connection import head, of_all
from headwater.dashboard.csv import Table
from headwater.dashboard.logs import log_values
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.delivery import Delivery, DeliveryFilter, DeliveryState
from headwater.log_line import LogFilter
from headwater.record import Version

COLUMNS = (
    "id", "connection", "provider_id", "event_type", "state", "ignored", "received_at", "finished_at", "attempts",
    "duplicates", "body_bytes", "error_code", "error",
)  # fmt: skip
REJECTIONS_SHOWN = 20
BODY_CHARACTERS_SHOWN = 20_000


@dataclass(frozen=True, kw_only=True)
class Step:
    """One station of a delivery's way."""

    word: str
    state: str  # done, pending, failed or none: whether it was passed
    at: datetime | None
    words: str


def routes(screens: Screens) -> list[Route]:
    """The list of all, that of a connection, and one delivery."""
    made = _Deliveries(screens)
    return [
        screens.route("/deliveries", made.all),
        screens.route("/connections/{key}/deliveries", made.of_connection),
        screens.route("/deliveries/{id:int}", made.one),
    ]


class _Deliveries:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens
        self._store = screens.store

    async def all(self, request: Request, caller: Caller) -> Answer:
        """Of every connection that the caller may see."""
        query = Query(request)
        return await self._list(query, *await of_all(self._screens, query, caller), "deliveries")

    async def of_connection(self, request: Request, caller: Caller) -> Answer:
        """Of one connection, with the requests that were refused."""
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        rejections = await self._store.rejections(connection=stored.key, limit=REJECTIONS_SHOWN)
        values = {
            **await head(self._screens, stored, "deliveries"),
            "rejections": [rejection_as(one, shown=False) for one in rejections],
        }
        return await self._list(Query(request), [stored.key], values, f"deliveries-{stored.key}")

    async def one(self, request: Request, caller: Caller) -> Answer:
        """One delivery: its way, what it was, and what it changed."""
        query = Query(request)
        asked = query.flag("reveal") or False
        finish(query)
        found = await self._store.delivery(request.path_params["id"])
        if found is None:
            raise not_found("delivery")
        try:
            stored = await visible_connection(caller, self._store, found.connection)
        except ProblemError:
            raise not_found("delivery") from None
        shown = await reveal(caller, self._store, self._screens.clock, target=f"delivery {found.id}", asked=asked)
        versions = await self._store.versions_of_delivery(found.id)
        log = await said(self._store, LogFilter(delivery_id=found.id))
        body, is_cut = _text(found.body or b"") if shown else ("", False)
        kept = delivery_as(found, shown=shown)
        values = {
            **log_values(log), "delivery": kept, "steps": steps(found, versions), "versions": versions, "shown": shown,
            "body": body, "is_cut": is_cut, "may_reveal": caller.may("payloads"),
            "command": f"headwater deliveries replay {found.id}",
            "curl": _curl(kept, self._screens.webhook_url(stored)) if shown else "",
            "crumbs": [("Deliveries", "/deliveries"), (found.connection, path("connections", found.connection))],
        }  # fmt: skip
        changed = [
            {"type": one.type, "source_id": one.source_id, "version": one.version, "stale": one.stale}
            for one in versions
        ]
        twin = entry_of(kept, without=("body",)) | {
            "body": body if shown else None,
            "steps": values["steps"],
            "changes": changed,
            "log": log,
        }
        return Answer(template="delivery.html", values=values, twin=twin)

    async def _list(self, query: Query, keys: Sequence[str] | None, values: Mapping[str, Any], name: str) -> Answer:
        state = query.choice("state", [one.value for one in DeliveryState])
        which = DeliveryFilter(
            state=DeliveryState(state) if state else None,
            event_type=query.text("event_type"),
            received_from=query.instant("from"),
            received_to=query.instant("to"),
            error_code=query.text("error_code"),
            replayed_at=query.instant("replayed_at"),
        )
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)

        async def fetch(key: str | None) -> Sequence[Delivery]:
            return await self._store.deliveries(replace(which, connection=key), after=after, limit=limit)

        found = await newest(keys, fetch, limit=limit)
        replay = await self._replay(keys, which.replayed_at)
        twin = listing(
            [entry_of(one, without=("headers", "body", "traceback")) for one in found],
            limit=limit,
            cursor=lambda one: one["id"],
            **({"replay": replay} if replay else {}),
        )
        matching: dict[str, Any] = {
            "connection": keys[0] if keys is not None and len(keys) == 1 else None, "state": state,
            "event_type": which.event_type, "received_from": which.received_from and which.received_from.isoformat(),
            "received_to": which.received_to and which.received_to.isoformat(), "error_code": which.error_code,
        }  # fmt: skip
        given = {
            "matching": matching if any(matching.values()) else None,
            "deliveries": found, "which": which, "state": state, "states": [one.value for one in DeliveryState],
            "next_cursor": twin["next_cursor"], "replay": replay, "rejections": (), "webhook_url": None, "stored": None,
        }  # fmt: skip
        table = Table(name=name, columns=COLUMNS, rows=[_row(one) for one in found])
        return Answer(template="deliveries.html", values={**given, **values}, twin=twin, table=table)

    async def _replay(self, keys: Sequence[str] | None, at: datetime | None) -> Mapping[str, int]:
        """How far a replay has come: deliveries by state; empty where none is asked for."""
        if at is None:
            return {}
        return {
            state.value: sum(
                [
                    await self._store.count_deliveries(DeliveryFilter(connection=key, state=state, replayed_at=at))
                    for key in (keys if keys is not None else [None])
                ]
            )
            for state in DeliveryState
        }


def steps(found: Delivery, versions: Sequence[Version]) -> list[Step]:
    """The way of a delivery: received → verified → deduplicated → processed → records."""
    again = f"came {found.duplicates} more {'time' if found.duplicates == 1 else 'times'}, without effect"
    processed = {
        DeliveryState.DONE: ("done", "no stream wanted it" if found.ignored else f"at attempt {found.attempts}"),
        DeliveryState.DEAD: ("failed", f"given up after attempt {found.attempts}"),
        DeliveryState.PENDING: ("pending", f"waits, after {found.attempts} attempts" if found.attempts else "waits"),
    }[found.state]
    changed = found.counts.changed
    return [
        Step(word="Received", state="done", at=found.received_at, words=f"{found.body_bytes:,} bytes"),
        Step(word="Verified", state="done", at=found.received_at, words="before it was stored"),
        Step(
            word="Deduplicated", state="done", at=found.last_duplicate_at,
            words=again if found.duplicates else "the first of its id",
        ),
        Step(word="Processed", state=processed[0], at=found.finished_at or found.due_at, words=processed[1]),
        Step(
            word="Records", state="done" if versions else "none", at=None,
            words=f"{changed} changed, {found.counts.total} emitted" if found.counts.total else "none emitted",
        ),
    ]  # fmt: skip


def _text(body: bytes) -> tuple[str, bool]:
    try:
        text = msgspec.json.format(body, indent=2).decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = body.decode("utf-8", errors="backslashreplace")
    return text[:BODY_CHARACTERS_SHOWN], len(text) > BODY_CHARACTERS_SHOWN


def _curl(found: Delivery, url: str | None) -> str:
    """The request again, unsigned: what proved it was not kept."""
    lines = [f"curl --request POST {shlex.quote(url or 'WEBHOOK_URL')} \\"]
    lines += [f"  --header {shlex.quote(f'{name}: {value}')} \\" for name, value in found.headers.items()]
    return "\n".join([*lines, "  --data-binary @body"])


def _row(one: Delivery) -> tuple[Any, ...]:
    return (
        one.id, one.connection, one.provider_id, one.event_type, one.state.value, one.ignored, one.received_at,
        one.finished_at, one.attempts, one.duplicates, one.body_bytes, one.error_code, one.error,
    )  # fmt: skip
