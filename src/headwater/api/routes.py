"""`/api/v1`: one application of its own, so that every refusal below it is a problem document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route

from headwater.api.access import Caller, Guard
from headwater.api.accounts import AccountResource
from headwater.api.acts import ActResource
from headwater.api.changes import ChangeResource
from headwater.api.deliveries import DeliveryResource
from headwater.api.deployments import DeploymentResource
from headwater.api.endpoint import Endpoint, MakeDesk, PageOnDemand, Services, endpoint
from headwater.api.keys import KeyResource
from headwater.api.logs import LogResource
from headwater.api.openapi import document
from headwater.api.problem import EXCEPTION_HANDLERS
from headwater.api.query import Query
from headwater.api.records import RecordResource
from headwater.api.runs import RunResource
from headwater.api.streams import StreamResource
from headwater.clock import Clock
from headwater.store import Store

if TYPE_CHECKING:
    from headwater.deploy import Deployer

PREFIX = "/api/v1"


def routes(
    *,
    store: Store,
    clock: Clock,
    guard: Guard,
    one_page: PageOnDemand | None = None,
    connector_names: Mapping[str, str] | None = None,
    deployer: Deployer | None = None,
    make_desk: MakeDesk | None = None,
    version: str = "",
) -> list[BaseRoute]:
    """The HTTP API; `one_page` adds the sync route, `deployer` the deploying, `connector_names` maps keys to names."""
    services = Services(
        store=store,
        clock=clock,
        guard=guard,
        one_page=one_page,
        deployer=deployer,
        make_desk=make_desk,
        connector_names=connector_names or {},
    )
    resources = (
        ActResource(services),
        StreamResource(services),
        RunResource(services),
        DeliveryResource(services),
        LogResource(services),
        RecordResource(services),
        ChangeResource(services),
        DeploymentResource(services),
        KeyResource(services),
        AccountResource(services),
    )
    table: list[BaseRoute] = [route for resource in resources for route in resource.routes()]
    table.append(_described(services, table, version))
    api = Starlette(routes=table, exception_handlers=dict(EXCEPTION_HANDLERS))
    api.router.redirect_slashes = False
    return [Mount(PREFIX, app=api)]


def _described(services: Services, routes: Sequence[BaseRoute], version: str) -> Route:
    operations = [one.operation for one in routes if isinstance(one, Endpoint)]

    @cache
    def described() -> dict[str, Any]:  # it costs more than the rest of the API's start: made when somebody asks
        return document(operations, version=version, prefix=PREFIX)

    async def openapi(request: Request, caller: Caller) -> Any:  # noqa: ARG001  a handler's shape
        """The OpenAPI document of this API."""
        Query(request).done()
        return described()

    return endpoint(services, "GET", "/openapi.json", openapi)
