"""`/acts`: everything that the dashboard can do, as data: what there is, what it would do, and doing it."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.acts.act import Act, command_line, perform
from headwater.acts.registry import ACTS
from headwater.api.access import Caller
from headwater.api.endpoint import Services, endpoint, json_response
from headwater.api.problem import ProblemError, not_found
from headwater.api.query import Query, json_body
from headwater.errors import NotFoundError, UsageError


class ActResource:
    """The acts."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        return [
            endpoint(self._services, "GET", "/acts", self.acts),
            endpoint(self._services, "POST", "/acts/{name}", self.perform),
            endpoint(self._services, "POST", "/acts/{name}/plan", self.plan),
        ]

    async def acts(self, request: Request, caller: Caller) -> Any:  # noqa: ARG002  a handler's shape
        """Every act with the JSON Schema of its body."""
        Query(request).done()
        kinds = list(ACTS.values())
        schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/{name}")
        return {
            "data": [
                {"name": kind.name, "title": kind.title, "description": kind.__doc__, "schema": schema}
                for kind, schema in zip(kinds, schemas, strict=True)
            ],
            "components": components,
            "next_cursor": None,
        }

    async def plan(self, request: Request, caller: Caller) -> Any:
        """What an act would do; nothing is done."""
        act = await self._read(request)
        try:
            plan = await act.plan(self._services.desk(caller))
        except UsageError as error:
            raise _conflict(error) from error
        return {"plan": plan, "command": command_line(act)}

    async def perform(self, request: Request, caller: Caller) -> Any:
        """Carry out an act."""
        act = await self._read(request)
        done = await performed(self._services, caller, act)
        headers = {"Location": request.scope["root_path"] + done.place.path} if done.place else {}
        answer = {"ok": done.ok, "sentence": done.sentence, "value": done.value, "command": command_line(act)}
        table = {"columns": done.columns, "rows": done.rows} if done.columns else {}
        return json_response(answer | table, headers=headers)

    async def _read(self, request: Request) -> Act:
        Query(request).done()
        kind = ACTS.get(request.path_params["name"])
        if kind is None:
            raise not_found("act")
        return await json_body(request, kind)


async def performed(services: Services, caller: Caller, act: Act) -> Any:
    """What an act of a caller came to; 409 for what cannot be done as things are."""
    try:
        return await perform(act, services.desk(caller))
    except UsageError as error:
        raise _conflict(error) from error
    except NotFoundError as error:
        raise ProblemError(404, error.message, code="request.not_found", hint=error.hint) from error


def _conflict(error: UsageError) -> ProblemError:
    return ProblemError(409, error.message, code=error.code, hint=error.hint)
