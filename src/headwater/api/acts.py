"""`/acts`: everything that the dashboard can do, as data: what there is, what it would do, and doing it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.acts.act import Act, Plan, command_line, perform
from headwater.acts.registry import ACTS
from headwater.api.access import Caller
from headwater.api.endpoint import Services, endpoint, json_response
from headwater.api.operation import Shape
from headwater.api.problem import ProblemError
from headwater.api.query import Query, json_body
from headwater.errors import NotFoundError, UsageError


class ActResource:
    """The acts."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        services = self._services
        told = {"name": str, "title": str, "description": str, "schema": dict[str, Any]}
        listed = Shape(beside=told).listed(components=dict[str, Any])
        done = {"ok": bool, "sentence": str, "value": dict[str, Any], "command": str}
        routes: list[Route] = [endpoint(services, "GET", "/acts", self.acts, answer=listed)]
        for kind in ACTS.values():
            routes += [
                endpoint(
                    services, "POST", f"/acts/{kind.name}", _Doing(self.perform, kind, "Carry it out"), body=kind,
                    answer=Shape(beside=done | {"columns": list[str], "rows": list[list[Any]]}),
                ),
                endpoint(
                    services, "POST", f"/acts/{kind.name}/plan", _Doing(self.plan, kind, "Tell what it would do"),
                    body=kind, answer=Shape(beside={"plan": Plan, "command": str}),
                ),
            ]  # fmt: skip
        return routes

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

    async def plan(self, request: Request, caller: Caller, kind: type[Act]) -> Any:
        """What an act would do; nothing is done."""
        act = await self._read(request, kind)
        try:
            plan = await act.plan(self._services.desk(caller))
        except UsageError as error:
            raise _conflict(error) from error
        return {"plan": plan, "command": command_line(act)}

    async def perform(self, request: Request, caller: Caller, kind: type[Act]) -> Any:
        """Carry out an act."""
        act = await self._read(request, kind)
        done = await performed(self._services, caller, act)
        headers = {"Location": request.scope["root_path"] + done.place.path} if done.place else {}
        answer = {"ok": done.ok, "sentence": done.sentence, "value": done.value, "command": command_line(act)}
        return json_response(answer | {"columns": done.columns, "rows": done.rows}, headers=headers)

    async def _read(self, request: Request, kind: type[Act]) -> Act:
        Query(request).done()
        return await json_body(request, kind)


class _Doing:
    """A handler of one act."""

    def __init__(self, handler: Callable[[Request, Caller, type[Act]], Awaitable[Any]], kind: type[Act], does: str):
        self._handler = handler
        self._kind = kind
        self.__name__ = f"{handler.__name__}_{kind.name.replace('.', '_')}"
        self.__doc__ = f"{kind.title}: {does[:1].lower()}{does[1:]}.\n{inspect.getdoc(kind)}"

    async def __call__(self, request: Request, caller: Caller) -> Any:
        return await self._handler(request, caller, self._kind)


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
