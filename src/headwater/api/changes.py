"""`/changes`: the feed over HTTP, by sequence or by the name of a consumer; and `/consumers`: how far each has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, visible, visible_connection
from headwater.api.endpoint import Services, endpoint
from headwater.api.operation import CONNECTION, LIMIT, TENANT, TYPE, Shape, number, text
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import INTEGER_MAX, Query, json_body
from headwater.api.reveal import change_as, opened
from headwater.feed import Consumer
from headwater.intention import Feed
from headwater.sink import Change, changes

WAIT_SECONDS_MAX = 30
READS_MAX = 100  # of one request: an empty answer then still moves the caller's position on
WAITING_MAX = 500  # callers held at once; one more is told to come back


class Advance(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How far a consumer has come."""

    position: Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class ChangeResource:
    """The change feed and its named readers."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock
        self._waiting = 0

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        after = number("after", "The `position` of the slice before.")
        wait = number("wait", "Seconds to wait for something new.", high=WAIT_SECONDS_MAX)
        asked = [after, text("consumer", "Go on where this reader is."), LIMIT, wait, CONNECTION, TENANT, TYPE]
        slice_ = Shape(beside={"data": Shape(kind=Change, is_list=True), "position": int, "high_water": int})
        reader = Shape(beside={"name": str, "position": int, "lag": int})
        return [
            endpoint(services, "GET", "/changes", self.changes, query=asked, answer=slice_),
            endpoint(services, "GET", "/consumers/{name}", self.consumer, answer=reader),
            # A reader notes its own progress: that is no act upon the platform.
            endpoint(services, "POST", "/consumers/{name}", self.advance, scope="read", body=Advance, answer=reader),
        ]

    async def changes(self, request: Request, caller: Caller) -> Any:
        """A slice of the change feed; waits up to `wait` seconds where there is nothing yet.

        Go on with `after` = the `position` of the answer: an empty slice may still have moved it.
        """
        query = Query(request)
        after, name, limit = query.integer("after"), query.text("consumer"), query.limit()
        wait = query.integer("wait", high=WAIT_SECONDS_MAX) or 0
        connection, tenant, kind = query.text("connection"), query.text("tenant"), query.text("type")
        query.done()
        if connection is not None:
            await visible_connection(caller, self._store, connection)
        if caller.tenant is not None and tenant not in (None, caller.tenant):
            raise not_found("tenant")
        if after is None:
            after = await self._consumer(name, caller).position() if name else 0
        names = {"connection": connection, "type": kind, "tenant": caller.tenant or tenant}
        feed = await self._feed(after, limit=limit, wait=wait, names=names)
        connectors = {key: one.connector for key, one in (await visible(caller, self._store)).items()}
        shown = await opened(caller, self._store, self._clock, target=f"changes after {after}")
        data = [change_as(one, shown=shown) for one in changes(feed.changes, connectors)]
        return {"data": data, "position": feed.position, "high_water": feed.high_water}

    async def consumer(self, request: Request, caller: Caller) -> Any:
        """How far a consumer has come."""
        Query(request).done()
        name = request.path_params["name"]
        return await self._entry(name, self._consumer(name, caller))

    async def advance(self, request: Request, caller: Caller) -> Any:
        """Note how far a consumer has come."""
        Query(request).done()
        name = request.path_params["name"]
        consumer = self._consumer(name, caller)
        position = (await json_body(request, Advance)).position
        await self._known_position(position)
        await consumer.advance(position)
        return await self._entry(name, consumer)

    async def _entry(self, name: str, consumer: Consumer) -> dict[str, Any]:
        return {"name": name, "position": await consumer.position(), "lag": await consumer.lag()}

    async def _known_position(self, position: int) -> None:
        high_water = (await self._store.changes(after=position, limit=1)).high_water
        if position > high_water:
            raise _beyond(position, high_water)

    async def _feed(self, after: int, *, limit: int, wait: int, names: Mapping[str, str | None]) -> Feed:
        """The slice, once there is one or the time is over."""
        deadline = self._clock.monotonic() + wait
        feed = await self._store.changes(after=after, limit=limit, **names)
        if after > feed.high_water:
            raise _beyond(after, feed.high_water)
        for _ in range(READS_MAX):
            if feed.changes:
                break
            seen = feed.high_water
            waits = feed.position >= seen  # else the read only ended: it looks so far, and the filter hid all of that
            left = deadline - self._clock.monotonic()
            if waits and left <= 0:
                break
            if waits:
                await self._wait(seen, left)
            feed = await self._store.changes(after=feed.position, limit=limit, **names)
            if waits and feed.high_water == seen:
                break
        return feed

    async def _wait(self, seen: int, seconds: float) -> None:
        if self._waiting >= WAITING_MAX:
            raise ProblemError(
                503, f"{WAITING_MAX} callers wait for changes already.", headers={"Retry-After": str(WAIT_SECONDS_MAX)}
            )
        self._waiting += 1
        try:
            await self._store.wait_for_changes(seen, timeout_seconds=seconds)
        finally:
            self._waiting -= 1

    def _consumer(self, name: str, caller: Caller) -> Consumer:
        # Names of different tenants are different names; quoting keeps one from spelling another's.
        own = name if caller.tenant is None else f"tenant {quote(caller.tenant, safe='')} {name}"
        return Consumer(self._store, own, clock=self._clock)


def _beyond(position: int, high_water: int) -> ProblemError:
    return ProblemError(
        409,
        f"The feed ends at {high_water}, before position {position}.",
        code="request.position",
        hint="This position comes from another database: begin anew with a snapshot.",
    )
