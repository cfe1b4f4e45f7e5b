"""`/streams` and `/connections`: their health, and pausing, resuming and triggering them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater import health
from headwater.acts.connections import REASON_CHARACTERS_MAX, PauseConnection, ResumeConnection
from headwater.acts.streams import Pages, PauseStream, ResumeStream, TriggerRun
from headwater.api.access import Caller, selected, visible, visible_connection
from headwater.api.acts import performed
from headwater.api.endpoint import Services, endpoint, json_response
from headwater.api.operation import AFTER, CONNECTION, LIMIT, PARTITION, TENANT, Shape, choice
from headwater.api.problem import not_found
from headwater.api.query import Query, json_body
from headwater.health import StreamReport
from headwater.intention import LIST_LIMIT_MAX
from headwater.run import StreamState
from headwater.verdict import Status

STREAM_PATH = "/connections/{key}/streams/{stream}"


class Pause(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why a connection is paused."""

    reason: str = "an operator paused this connection"


class Trigger(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run that an operator wants now."""

    pages_limit: Pages | None = None  # stop after so many pages, with success
    allow_deletes: bool = False  # release the mass-delete brake for this run


@dataclass(frozen=True, kw_only=True)
class ConnectionEntry:
    """A connection with the sentence that sums it up."""

    key: str
    connector: str
    tenant: str | None
    summary: str
    statuses: Mapping[Status, int]
    paused_at: datetime | None
    paused_reason: str | None
    needs_attention: bool
    created_at: datetime


class StreamResource:
    """Streams and the connections that carry them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        one: dict[str, Any] = {"query": [PARTITION], "answer": Shape(kind=StreamReport)}
        status = choice("status", [one.value for one in Status])
        streams = Shape(kind=StreamReport).listed(statuses=dict[Status, int], at=datetime)
        connection = Shape(kind=ConnectionEntry)
        paused = Shape(beside={"key": str, "paused_at": datetime | None, "paused_reason": str | None})
        started: dict[str, Any] = {
            "query": [PARTITION],
            "body": Trigger,
            "answer": Shape(beside={"run_id": int}),
            "status": 202,
        }
        return [
            endpoint(
                services, "GET", "/streams", self.streams, query=[CONNECTION, TENANT, status, AFTER, LIMIT],
                answer=streams,
            ),
            endpoint(
                services, "GET", "/connections", self.connections, query=[TENANT], answer=connection.listed()
            ),
            endpoint(services, "GET", STREAM_PATH, self.stream, **one),
            endpoint(services, "POST", STREAM_PATH + "/pause", self.pause_stream, **one),
            endpoint(services, "POST", STREAM_PATH + "/resume", self.resume_stream, **one),
            endpoint(services, "POST", STREAM_PATH + "/runs", self.trigger, **started),
            endpoint(services, "POST", "/connections/{key}/pause", self.pause, body=Pause, answer=paused),
            endpoint(services, "POST", "/connections/{key}/resume", self.resume, answer=paused),
        ]  # fmt: skip

    async def streams(self, request: Request, caller: Caller) -> Any:
        """Every stream with its verdict, by connection and name."""
        query = Query(request)
        connection, tenant = query.text("connection"), query.text("tenant")
        status = query.choice("status", [one.value for one in Status])
        after, limit = query.text("after"), query.limit(LIST_LIMIT_MAX)
        query.done()
        found = await self._reports(caller, connection=connection, tenant=tenant)
        wanted = [one for one in found if status in (None, one.status.value)]
        rest = [one for one in wanted if after is None or _cursor(one) > after]
        page = rest[:limit]
        return {
            "data": page,
            "next_cursor": _cursor(page[-1]) if len(rest) > limit else None,
            "statuses": health.status_counts(found),
            "at": self._clock.now(),
        }

    async def connections(self, request: Request, caller: Caller) -> Any:
        """Every connection with the sentence that sums it up."""
        query = Query(request)
        tenant = query.text("tenant")
        query.done()
        reports = await self._reports(caller, connection=None, tenant=tenant)
        entries = []
        for key, one in sorted((await visible(caller, self._store)).items()):
            if tenant is not None and one.tenant != tenant:
                continue
            own = [report for report in reports if report.connection == key]
            entries.append(
                ConnectionEntry(
                    key=key,
                    connector=one.connector,
                    tenant=one.tenant,
                    summary=health.connection_summary(self._services.connector_name(one.connector), key, own),
                    statuses=health.status_counts(own),
                    paused_at=one.paused_at,
                    paused_reason=one.paused_reason,
                    needs_attention=one.needs_attention,
                    created_at=one.created_at,
                )
            )
        return {"data": entries, "next_cursor": None}

    async def stream(self, request: Request, caller: Caller) -> Any:
        """One stream with its verdict."""
        return health.report(await self._one(request, caller), self._clock.now())

    async def trigger(self, request: Request, caller: Caller) -> Any:
        """Make a run that waits to be admitted."""
        state = await self._one(request, caller)
        wanted = await json_body(request, Trigger)
        act = TriggerRun(**_words(state), pages_limit=wanted.pages_limit, allow_deletes=wanted.allow_deletes)
        done = await performed(self._services, caller, act)
        run_id = done.value["run_id"]
        headers = {"Location": f"{request.scope['root_path']}/runs/{run_id}"}
        return json_response({"run_id": run_id}, status=202, headers=headers)

    async def pause_stream(self, request: Request, caller: Caller) -> Any:
        """Start no run of a stream until it is resumed."""
        state = await self._one(request, caller)
        await performed(self._services, caller, PauseStream(**_words(state)))
        return await self._again(state)

    async def resume_stream(self, request: Request, caller: Caller) -> Any:
        """Undo a stream's pause: ticks that were missed coalesce into one run, now."""
        state = await self._one(request, caller)
        await performed(self._services, caller, ResumeStream(**_words(state)))
        return await self._again(state)

    async def pause(self, request: Request, caller: Caller) -> Any:
        """Pause a connection; its deliveries are still stored."""
        Query(request).done()
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        reason = (await json_body(request, Pause)).reason.strip()[:REASON_CHARACTERS_MAX] or Pause().reason
        return (await performed(self._services, caller, PauseConnection(connection=stored.key, reason=reason))).value

    async def resume(self, request: Request, caller: Caller) -> Any:
        """Undo a connection's pause, of either kind."""
        Query(request).done()
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        return (await performed(self._services, caller, ResumeConnection(connection=stored.key))).value

    async def _reports(self, caller: Caller, *, connection: str | None, tenant: str | None) -> list[StreamReport]:
        at = self._clock.now()
        keys = await selected(caller, self._store, connection=connection, tenant=tenant)
        rows: Sequence[StreamState] = await self._store.streams(at=at, connection=connection, tenant=caller.tenant)
        reports = [health.report(row, at) for row in rows if keys is None or row.connection in keys]
        return sorted(reports, key=_cursor)

    async def _one(self, request: Request, caller: Caller) -> StreamState:
        query = Query(request)
        partition = query.text("partition") or ""
        query.done()
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        rows = await self._store.streams(
            at=self._clock.now(), connection=stored.key, stream=request.path_params["stream"]
        )
        for row in rows:
            if row.partition == partition:
                return row
        raise not_found("stream")

    async def _again(self, state: StreamState) -> StreamReport:
        at = self._clock.now()
        rows = await self._store.streams(at=at, connection=state.connection, stream=state.stream)
        return next(health.report(row, at) for row in rows if row.id == state.id)


def _cursor(report: StreamReport) -> str:
    return json.dumps([report.connection, report.stream, report.partition])


def _words(state: StreamState) -> dict[str, str]:
    return {"connection": state.connection, "stream": state.stream, "partition": state.partition}
