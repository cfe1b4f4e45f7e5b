"""The operator's pages: each module of screens makes its routes here, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import BaseRoute

from headwater.api.access import Guard
from headwater.api.endpoint import Services
from headwater.clock import Clock
from headwater.dashboard import accounts, home, keys, login
from headwater.dashboard.page import Pages
from headwater.dashboard.screen import Installation, Screens
from headwater.door import Door
from headwater.store import Store

# One line a module; `routes(screens)` makes what it shows. A path that is a special case of another stands before it.
SCREENS: Sequence[Callable[[Screens], Sequence[BaseRoute]]] = (
    home.routes,
    login.routes,
    accounts.routes,
    keys.routes,
)


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
) -> list[BaseRoute]:
    """The dashboard at `/`, and its static files; `connector_names` maps connector keys to names for people."""
    services = Services(store=store, clock=clock, guard=guard, connector_names=connector_names or {})
    screens = Screens(
        services=services,
        pages=Pages(),
        version=version,
        installation=installation,
        public_url=public_url,
        door=door,
    )
    for made in SCREENS:
        screens.add(made(screens))
    return [*screens.routes, screens.pages.static_route()]
