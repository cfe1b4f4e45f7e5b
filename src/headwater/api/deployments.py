"""`/bundles` and `/deployments`: versions of connectors, brought, planned, activated, returned to.

A bundle runs as code in the server: the keys that may bring one have the `deploy` scope, and no tenant.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.api.access import Caller
from headwater.api.endpoint import Services, endpoint, entry_of, json_response, listing
from headwater.api.operation import AFTER, AFTER_ID, LIMIT, Shape, flag, text
from headwater.api.problem import ProblemError
from headwater.api.query import Query, json_body, raw_body
from headwater.archive import ARCHIVE_BYTES_MAX
from headwater.deploy import BundleRefusedError, Deployer, Wanted
from headwater.deployment import Deployment, StoredBundle
from headwater.errors import CheckFailedError

MEDIA_TYPE = "application/octet-stream"
HASH_CHARACTERS = 32


class DeploymentResource:
    """Bundles and their activations."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store

    def routes(self) -> list[Route]:
        """The routes of these resources."""
        services = self._services
        connector = text("connector", "Connector key.")
        without = ("archive", "outline")
        bundles = Shape(kind=StoredBundle, without=without).listed()
        deployments = Shape(kind=Deployment).listed(active=dict[str, str])
        asked = [connector, AFTER, LIMIT]
        routes = [
            endpoint(services, "GET", "/bundles", self.bundles, query=asked, answer=bundles),
            endpoint(
                services, "GET", "/deployments", self.deployments, query=[connector, AFTER_ID, LIMIT],
                answer=deployments,
            ),
        ]  # fmt: skip
        if services.deployer is not None:
            stored: dict[str, Any] = {
                "query": [text("hash", "Of its content."), flag("plan", "Only tell what it would change.")]
            }
            answered: dict[str, Any] = {"answer": Shape(kind=Any), "statuses": (200,), "status": 201, "scope": "deploy"}
            routes += [
                endpoint(
                    services,
                    "POST",
                    "/bundles",
                    self.receive,
                    body=bytes,
                    media_type=MEDIA_TYPE,
                    body_bytes_max=ARCHIVE_BYTES_MAX,
                    **stored,
                    **answered,
                ),
                endpoint(services, "POST", "/deployments", self.deploy, body=Wanted, **answered),
            ]
        return list(routes)

    async def bundles(self, request: Request, caller: Caller) -> Any:
        """The stored bundles, newest first."""
        _refuse_tenant(caller)
        query = Query(request)
        connector, after, limit = query.text("connector"), query.text("after"), query.limit()
        query.done()
        found = await self._store.bundles(connector=connector, after=after, limit=limit)
        return listing([_shown(one) for one in found], limit=limit, cursor=lambda one: one["hash"])

    async def deployments(self, request: Request, caller: Caller) -> Any:
        """The activations, newest first, and what is active."""
        _refuse_tenant(caller)
        query = Query(request)
        connector, after, limit = query.text("connector"), query.integer("after"), query.limit()
        query.done()
        found = await self._store.deployments(connector=connector, after=after, limit=limit)
        active = await self._store.active_bundles()
        return listing(found, limit=limit, cursor=lambda one: one.id, active=active)

    async def receive(self, request: Request, caller: Caller) -> Response:
        """Check a bundle and store it, or with `plan=true` write nothing and answer what it would change."""
        _refuse_tenant(caller)
        query = Query(request)
        content_hash, plans_only = query.text("hash") or "", query.flag("plan")
        query.done()
        if len(content_hash) != HASH_CHARACTERS or not content_hash.isalnum():
            raise ProblemError(400, "`hash` is no name of a bundle.", code="request.parameters")
        if request.headers.get("content-type", "").partition(";")[0].strip() != MEDIA_TYPE:
            raise ProblemError(415, "The body is no bundle.", hint=f"Send `Content-Type: {MEDIA_TYPE}`.")
        archive = await raw_body(request, bytes_max=ARCHIVE_BYTES_MAX)
        try:
            if plans_only:
                rehearsed = await self._deployer.rehearse(archive, content_hash=content_hash, actor=caller.name)
                return json_response(rehearsed)
            received = await self._deployer.receive(archive, content_hash=content_hash, actor=caller.name)
        except CheckFailedError as error:
            lines = error.lines if isinstance(error, BundleRefusedError) else ()
            raise ProblemError(422, error.message, code=error.code, hint=error.hint, errors=lines) from error
        status = 201 if received.is_new else 200
        return json_response(_shown(received.bundle) | {"warnings": received.lines}, status=status)

    async def deploy(self, request: Request, caller: Caller) -> Response:
        """Plan, and activate unless it is a dry run."""
        _refuse_tenant(caller)
        Query(request).done()
        wanted = await json_body(request, Wanted)
        answer = await self._deployer.carry_out(wanted, actor=caller.name)
        return json_response(answer, status=200 if wanted.dry_run else 201)

    @property
    def _deployer(self) -> Deployer:
        assert self._services.deployer is not None, "the routes are mounted with it alone"
        return self._services.deployer


def _shown(bundle: StoredBundle) -> dict[str, Any]:
    return entry_of(bundle, without=("archive", "outline"))


def _refuse_tenant(caller: Caller) -> None:
    # A connector serves the connections of every tenant.
    if caller.tenant is not None:
        raise ProblemError(403, f"The key `{caller.name}` is one tenant's.", code="request.scope")
