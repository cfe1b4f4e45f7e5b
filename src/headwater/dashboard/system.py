"""`/system`: what runs here: versions, the store, the nodes, the connectors and what was deployed of them."""

from __future__ import annotations

import platform as machine
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, require_all
from headwater.api.query import Query
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.delivery import DeliveryFilter, DeliveryState

DEPLOYMENTS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Connector:
    """A connector that is loaded here, or has connections and is not."""

    key: str
    version: str | None  # None: it is not loaded
    origin: str | None
    streams: int
    connections: int


def routes(screens: Screens) -> list[Route]:
    """The page."""

    async def show(request: Request, caller: Caller) -> Answer:
        require_all(caller)
        finish(Query(request))
        store = screens.store
        nodes = await screens.nodes()
        deployments = await store.deployments(limit=DEPLOYMENTS_SHOWN)
        dead = await store.count_deliveries(DeliveryFilter(state=DeliveryState.DEAD))
        installation = screens.installation
        refused = [
            {"path": str(one.path), "lines": list(one.lines)} for one in (installation.refused if installation else ())
        ]
        twin: dict[str, Any] = {
            "version": screens.version,
            "python": machine.python_version(),
            "store": store.name,
            "pending_deliveries": await store.pending_deliveries(),
            "dead_deliveries": dead,
            "feed_position": (await store.changes(after=0, limit=1)).high_water,
            "connectors": await connectors(screens),
            "refused": refused,
            "nodes": nodes,
            "deployments": deployments,
        }
        return Answer(template="system.html", values={"system": twin}, twin=twin)

    return [screens.route("/system", show)]


async def connectors(screens: Screens) -> Sequence[Connector]:
    """Those that are loaded, and those that should be, by key."""
    used: dict[str, int] = {}
    for one in await screens.store.connections():
        used[one.connector] = used.get(one.connector, 0) + 1
    projects = screens.installation.projects if screens.installation else {}
    return [
        Connector(
            key=key,
            version=projects[key].version if key in projects else None,
            origin=screens.origin(key),
            streams=len(projects[key].connector.streams) if key in projects else 0,
            connections=used.get(key, 0),
        )
        for key in sorted({*projects, *used})
    ]
