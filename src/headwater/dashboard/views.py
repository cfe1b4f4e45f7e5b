"""The operator's pages: each module of screens makes its routes here, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from headwater.api.access import Guard
from headwater.api.endpoint import MakeDesk, Services
from headwater.clock import Clock
from headwater.dashboard import (
    accounts,
    activity,
    acts,
    alerts,
    audit,
    backfills,
    connection,
    deliveries,
    home,
    keys,
    login,
    logs,
    oauth,
    quarantine,
    records,
    runs,
    setup,
    stream,
    system,
)
from headwater.dashboard.page import Pages
from headwater.dashboard.screen import Installation, Screens
from headwater.door import Door
from headwater.store import Store

# One line a module; `routes(screens)` makes what it shows. A path that is a special case of another stands before it.
SCREENS: Sequence[Callable[[Screens], Sequence[BaseRoute]]] = (
    home.routes,
    connection.routes,
    setup.routes,
    oauth.routes,
    stream.routes,
    runs.routes,
    deliveries.routes,
    records.routes,
    backfills.routes,
    quarantine.routes,
    logs.routes,
    activity.routes,
    alerts.routes,
    system.routes,
    acts.routes,
    login.routes,
    accounts.routes,
    keys.routes,
    audit.routes,
)


PAGES = Pages()


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "There is nothing here.", 405: f"This page does not take {request.method}."}
    message = words.get(error.status_code, error.detail)
    page = PAGES.render("problem.html", status=error.status_code, message=message, hint="", product="")
    page.headers.update(error.headers or {})
    return page


async def _on_bug(_: Request, __: Exception) -> Response:
    # Starlette raises the exception anew after the answer: the server logs it, the reader learns nothing of it.
    return PAGES.render(
        "problem.html", status=500, message="Something went wrong here.", hint="It is in the log.", product=""
    )


EXCEPTION_HANDLERS: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
    HTTPException: _on_http_exception,
    Exception: _on_bug,
}


def routes(
    *,
    store: Store,
    clock: Clock,
    guard: Guard,
    connector_names: Mapping[str, str] | None = None,
    version: str = "",
    installation: Installation | None = None,
    public_url: str | None = None,
    door: Door | None = None,
    make_desk: MakeDesk | None = None,
) -> list[BaseRoute]:
    """The dashboard at `/`, and its static files; `connector_names` maps connector keys to names for people."""
    services = Services(
        store=store, clock=clock, guard=guard, connector_names=connector_names or {}, make_desk=make_desk
    )
    screens = Screens(
        services=services,
        pages=PAGES,
        version=version,
        installation=installation,
        public_url=public_url,
        door=door,
    )
    for made in SCREENS:
        screens.add(made(screens))
    return [*screens.routes, screens.pages.static_route()]
