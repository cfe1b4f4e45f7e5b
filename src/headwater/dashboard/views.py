"""The operator's pages. Every filter is in the URL, and `format=json` gives the same page to programs."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headwater import health
from headwater.api.access import Caller, Guard, visible
from headwater.api.endpoint import json_response
from headwater.api.problem import from_error
from headwater.api.query import Query
from headwater.catalog import MODES
from headwater.clock import Clock
from headwater.dashboard.overview import Filters, matching, overview, page_of, twin
from headwater.dashboard.page import Pages
from headwater.dashboard.strip import strips
from headwater.errors import HeadwaterError
from headwater.health import Status
from headwater.store import Store

PAGE_MAX = 10_000
FORMATS = ("html", "json")


def routes(
    *,
    store: Store,
    clock: Clock,
    guard: Guard,
    connector_names: Mapping[str, str] | None = None,
    version: str = "",
) -> list[BaseRoute]:
    """The dashboard at `/`, and its static files; `connector_names` maps connector keys to names for people."""
    pages = Pages()
    names = connector_names or {}

    async def show(request: Request, caller: Caller) -> Response:
        filters = _filters(request)
        at = clock.now()
        reports = health.reports(await store.streams(at=at, tenant=caller.tenant), at)
        cells = await strips(store, page_of(matching(reports, filters), filters), at)
        connections = await visible(caller, store)
        page = overview(reports, filters, at=at, connections=connections, connector_names=names, strips=cells)
        if _wants_json(request):
            return json_response(twin(page, cells))
        return pages.render("overview.html", page=page, version=version)

    async def answer(request: Request) -> Response:
        try:
            caller = await guard(request)
            caller.require("read")
            return await show(request, caller)
        except HeadwaterError as error:
            problem = from_error(error)
            return problem if _wants_json(request) else _refusal(pages, error, problem, version)

    return [Route("/", answer, name="overview"), pages.static_route()]


def _filters(request: Request) -> Filters:
    query = Query(request)
    filters = Filters(
        status=query.choice("status", [one.value for one in Status]),
        connection=query.text("connection"),
        tenant=query.text("tenant"),
        mode=query.choice("mode", MODES),
        search=query.text("q"),
        page=query.integer("page", low=1, high=PAGE_MAX) or 1,
    )
    query.choice("format", FORMATS)
    query.done()
    return filters


def _wants_json(request: Request) -> bool:
    return request.query_params.get("format") == "json"


def _refusal(pages: Pages, error: HeadwaterError, problem: Response, version: str) -> Response:
    """A refusal as a page, with the status and headers of its problem document."""
    page = pages.render(
        "problem.html", status=problem.status_code, message=error.message, hint=error.hint, version=version
    )
    for name in ("www-authenticate", "retry-after"):
        if name in problem.headers:
            page.headers[name] = problem.headers[name]
    return page
