"""`/deliveries` with their replay, and `/quarantine`."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.acts.deliveries import ReplayDeliveries
from headwater.api.access import Caller, selected, visible_connection
from headwater.api.acts import performed
from headwater.api.endpoint import Services, endpoint, entry_of, listing, newest
from headwater.api.operation import AFTER_ID, CONNECTION, LIMIT, STREAM, TENANT, Shape, choice, instant, text
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import INTEGER_MAX, Query, json_body
from headwater.api.reveal import change_as, delivery_as, opened, quarantined_as, rejection_as
from headwater.delivery import Delivery, DeliveryFilter, DeliveryState, Rejection
from headwater.record import QuarantinedRecord
from headwater.sink import Change, changes

REPLAY_IDS_MAX = 10_000
QUARANTINE_STATES = ("waiting", "released", "dropped")

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Id = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class Replay(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which deliveries are replayed: every given field must hold, and at least one must be given."""

    ids: Annotated[list[Id], msgspec.Meta(max_length=REPLAY_IDS_MAX)] | None = None
    connection: str | None = None
    state: DeliveryState | None = None
    event_type: str | None = None
    received_from: Instant | None = None
    received_to: Instant | None = None
    error_code: str | None = None
    dry_run: bool = False  # only count
    expected: int | None = None  # replay nothing unless exactly so many match

    @property
    def is_given(self) -> bool:
        """At least one field narrows it."""
        own = (self.ids, self.connection, self.state, self.event_type)
        return any(one is not None for one in (*own, self.received_from, self.received_to, self.error_code))

    def act(self) -> ReplayDeliveries:
        """The same, as what it does."""
        return ReplayDeliveries(
            ids=None if self.ids is None else tuple(self.ids),
            connection=self.connection,
            state=self.state,
            event_type=self.event_type,
            received_from=self.received_from,
            received_to=self.received_to,
            error_code=self.error_code,
            expected=self.expected,
        )


class DeliveryResource:
    """The inbox, and the records set aside."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        state = choice("state", [one.value for one in DeliveryState])
        span = [instant("from", "Received at or after."), instant("to", "Received before.")]
        filters = [text("event_type"), *span, text("error_code"), instant("replayed_at", "Of this replay.")]
        delivery = Shape(kind=Delivery, without=("headers", "body", "traceback"))
        whole = {"body": str | None, "body_encoding": Literal["utf-8", "base64"] | None, "changes": list[Change]}
        replayed = Shape(beside={"matched": int, "replayed": int, "dry_run": bool})
        waiting = choice("state", (*QUARANTINE_STATES, "all"))
        return [
            endpoint(
                services, "GET", "/deliveries", self.deliveries,
                query=[CONNECTION, TENANT, state, *filters, AFTER_ID, LIMIT], answer=delivery.listed(),
            ),
            endpoint(services, "POST", "/deliveries/replay", self.replay, body=Replay, answer=replayed),
            endpoint(
                services, "GET", "/deliveries/{id:int}", self.delivery,
                answer=Shape(kind=Delivery, without=("body",), beside=whole),
            ),
            endpoint(services, "POST", "/deliveries/{id:int}/replay", self.replay_one, answer=replayed),
            endpoint(
                services, "GET", "/rejections", self.rejections, query=[CONNECTION, TENANT, LIMIT],
                answer=Shape(kind=Rejection).listed(),
            ),
            endpoint(
                services, "GET", "/quarantine", self.quarantine,
                query=[CONNECTION, TENANT, STREAM, waiting, AFTER_ID, LIMIT],
                answer=Shape(kind=QuarantinedRecord).listed(),
            ),
        ]  # fmt: skip

    async def deliveries(self, request: Request, caller: Caller) -> Any:
        """Deliveries, newest first, without headers and body."""
        query = Query(request)
        connection, tenant = query.text("connection"), query.text("tenant")
        state = query.choice("state", [one.value for one in DeliveryState])
        which = DeliveryFilter(
            state=DeliveryState(state) if state else None,
            event_type=query.text("event_type"),
            received_from=query.instant("from"),
            received_to=query.instant("to"),
            error_code=query.text("error_code"),
            replayed_at=query.instant("replayed_at"),
        )
        after, limit = query.integer("after"), query.limit()
        query.done()

        async def fetch(key: str | None) -> Sequence[Delivery]:
            return await self._store.deliveries(replace(which, connection=key), after=after, limit=limit)

        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        found = await newest(keys, fetch, limit=limit)
        page = listing(found, limit=limit, cursor=lambda one: one.id)
        page["data"] = [entry_of(one, without=("headers", "body", "traceback")) for one in found]
        return page

    async def delivery(self, request: Request, caller: Caller) -> Any:
        """One delivery with headers, body, and what it changed."""
        Query(request).done()
        found = await self._visible(request, caller)
        connectors = {found.connection: found.connector}
        shown = await opened(caller, self._store, self._clock, target=f"delivery {found.id}")
        versions = changes(await self._store.versions_of_delivery(found.id), connectors)
        entry = entry_of(delivery_as(found, shown=shown), without=("body",)) | _body(found.body if shown else None)
        return entry | {"changes": [change_as(one, shown=shown) for one in versions]}

    async def replay(self, request: Request, caller: Caller) -> Any:
        """Make the deliveries that match pending again; `dry_run` counts them first."""
        Query(request).done()
        wanted = await json_body(request, Replay)
        if not wanted.is_given:
            raise ProblemError(
                400, "This would replay every delivery.", hint="Give at least one filter, such as state."
            )
        act = wanted.act()
        if wanted.dry_run:
            plan = await act.plan(self._services.desk(caller))
            return {"matched": plan.count, "replayed": 0, "dry_run": True}
        value = (await performed(self._services, caller, act)).value
        return {"matched": value["matched"], "replayed": value["replayed"], "dry_run": False}

    async def replay_one(self, request: Request, caller: Caller) -> Any:
        """Make one delivery pending again."""
        Query(request).done()
        found = await self._visible(request, caller)
        value = (await performed(self._services, caller, ReplayDeliveries(ids=(found.id,)))).value
        return {"matched": 1, "replayed": value["replayed"], "dry_run": False}

    async def rejections(self, request: Request, caller: Caller) -> Any:
        """Refused requests by hour and reason, newest hour first."""
        query = Query(request)
        connection, tenant, limit = query.text("connection"), query.text("tenant"), query.limit()
        query.done()
        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        each = [None] if keys is None else keys
        found = [one for key in each for one in await self._store.rejections(connection=key, limit=limit)]
        found.sort(key=lambda one: one.last_at, reverse=True)
        shown = await opened(caller, self._store, self._clock, target="rejections")
        return {"data": [rejection_as(one, shown=shown) for one in found[:limit]], "next_cursor": None}

    async def quarantine(self, request: Request, caller: Caller) -> Any:
        """Records set aside, newest first."""
        query = Query(request)
        connection, tenant, stream = query.text("connection"), query.text("tenant"), query.text("stream")
        state = query.choice("state", (*QUARANTINE_STATES, "all")) or "waiting"
        after, limit = query.integer("after"), query.limit()
        query.done()

        async def fetch(key: str | None) -> Sequence[QuarantinedRecord]:
            wanted = None if state == "all" else state
            return await self._store.quarantined(connection=key, stream=stream, state=wanted, after=after, limit=limit)

        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        found = await newest(keys, fetch, limit=limit)
        shown = await opened(caller, self._store, self._clock, target="quarantine")
        page = [quarantined_as(one, shown=shown) for one in found]
        return listing(page, limit=limit, cursor=lambda one: one.id)

    async def _visible(self, request: Request, caller: Caller) -> Delivery:
        found = await self._store.delivery(request.path_params["id"])
        if found is None:
            raise not_found("delivery")
        try:
            await visible_connection(caller, self._store, found.connection)
        except ProblemError:
            raise not_found("delivery") from None
        return found


def _body(body: bytes | None) -> dict[str, Any]:
    """The bytes as received: as text where they are UTF-8, else in base 64; null where they are not shown."""
    if body is None:
        return {"body": None, "body_encoding": None}
    try:
        return {"body": body.decode(), "body_encoding": "utf-8"}
    except UnicodeDecodeError:
        return {"body": b64encode(body).decode(), "body_encoding": "base64"}
