"""`/streams` and `/connections`: their health, and pausing, resuming and triggering them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater import cron, health
from headwater.api.access import Caller, selected, visible, visible_connection
from headwater.api.endpoint import Services, endpoint, json_response
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query, json_body
from headwater.errors import UsageError
from headwater.health import Status, StreamReport
from headwater.intention import LIST_LIMIT_MAX
from headwater.run import StreamState

REASON_CHARACTERS_MAX = 500
STREAM_PATH = "/connections/{key}/streams/{stream}"


class Pause(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Why a connection is paused."""

    reason: str = "an operator paused this connection"


class Trigger(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run that an operator wants now."""

    pages_limit: int | None = None  # stop after so many pages, with success
    allow_deletes: bool = False  # release the mass-delete brake for this run


class StreamResource:
    """Streams and the connections that carry them."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._clock = services.clock

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        table = [
            ("GET", "/streams", self.streams),
            ("GET", "/connections", self.connections),
            ("GET", STREAM_PATH, self.stream),
            ("POST", STREAM_PATH + "/pause", self.pause_stream),
            ("POST", STREAM_PATH + "/resume", self.resume_stream),
            ("POST", STREAM_PATH + "/runs", self.trigger),
            ("POST", "/connections/{key}/pause", self.pause),
            ("POST", "/connections/{key}/resume", self.resume),
        ]
        return [endpoint(self._services, method, path, handler) for method, path, handler in table]

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
                {
                    "key": key,
                    "connector": one.connector,
                    "tenant": one.tenant,
                    "summary": health.connection_summary(self._services.connector_name(one.connector), key, own),
                    "statuses": health.status_counts(own),
                    "paused_at": one.paused_at,
                    "paused_reason": one.paused_reason,
                    "needs_attention": one.needs_attention,
                    "created_at": one.created_at,
                }
            )
        return {"data": entries, "next_cursor": None}

    async def stream(self, request: Request, caller: Caller) -> Any:
        """One stream with its verdict."""
        return health.report(await self._one(request, caller), self._clock.now())

    async def trigger(self, request: Request, caller: Caller) -> Any:
        """Make a run that waits to be admitted."""
        state = await self._one(request, caller)
        if state.mode == "webhook":
            raise ProblemError(409, "A webhook stream has no runs.", hint="Replay deliveries instead.")
        wanted = await json_body(request, Trigger)
        if wanted.pages_limit is not None and wanted.pages_limit < 1:
            raise ProblemError(400, "`pages_limit` is no positive number.", code="request.body")
        try:
            run_id = await self._store.trigger_run(
                state.id,
                at=self._clock.now(),
                pages_limit=wanted.pages_limit,
                allow_deletes=wanted.allow_deletes,
            )
        except UsageError as error:
            raise ProblemError(409, error.message, code=error.code, hint=error.hint) from error
        await self._audit(caller, "trigger", _name(state), run_id=run_id, allow_deletes=wanted.allow_deletes)
        headers = {"Location": f"{request.scope['root_path']}/runs/{run_id}"}
        return json_response({"run_id": run_id}, status=202, headers=headers)

    async def pause_stream(self, request: Request, caller: Caller) -> Any:
        """Start no run of a stream until it is resumed."""
        state = await self._one(request, caller)
        await self._store.pause_stream(state.id, at=self._clock.now())
        await self._audit(caller, "pause", _name(state))
        return await self._again(state)

    async def resume_stream(self, request: Request, caller: Caller) -> Any:
        """Undo a stream's pause: it goes on with the next tick of its schedule."""
        state = await self._one(request, caller)
        at = self._clock.now()
        following = cron.next_tick(state.schedule, state.timezone, at) if state.schedule else None
        await self._store.resume_stream(state.id, next_tick_at=following)
        await self._audit(caller, "resume", _name(state))
        return await self._again(state)

    async def pause(self, request: Request, caller: Caller) -> Any:
        """Pause a connection; its deliveries are still stored."""
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        reason = (await json_body(request, Pause)).reason.strip()[:REASON_CHARACTERS_MAX] or Pause().reason
        at = self._clock.now()
        await self._store.pause_connection(stored.id, reason=reason, needs_attention=False, at=at)
        await self._audit(caller, "pause", stored.key, reason=reason)
        return {"key": stored.key, "paused_at": at, "paused_reason": reason}

    async def resume(self, request: Request, caller: Caller) -> Any:
        """Undo a connection's pause, of either kind."""
        stored = await visible_connection(caller, self._store, request.path_params["key"])
        await self._store.resume_connection(stored.id, at=self._clock.now())
        await self._audit(caller, "resume", stored.key)
        return {"key": stored.key, "paused_at": None, "paused_reason": None}

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

    async def _audit(self, caller: Caller, act: str, target: str, **detail: Any) -> None:
        await self._store.audit(at=self._clock.now(), actor=caller.name, act=act, target=target, detail=detail)


def _cursor(report: StreamReport) -> str:
    return json.dumps([report.connection, report.stream, report.partition])


def _name(state: StreamState) -> str:
    return f"{state.connection}/{state.stream}" + (f"[{state.partition}]" if state.partition else "")
