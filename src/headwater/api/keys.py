"""`/keys`: keys of the API, each shown once. Making and revoking one is the same act by page and by API."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.api.access import Caller, Scope, api_key_hash, new_api_key, require_all, require_to_give
from headwater.api.endpoint import Services, endpoint, json_response
from headwater.api.operation import Shape
from headwater.api.problem import not_found
from headwater.api.query import INTEGER_MAX, Query, json_body
from headwater.clock import Clock
from headwater.errors import UsageError
from headwater.intention import ApiKey, AuditNote
from headwater.redaction import one_line
from headwater.store import Store

NAME_CHARACTERS_MAX = 100
TENANT_CHARACTERS_MAX = 200
DAYS_MAX = 3_650


class NewKey(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a key is to be."""

    name: str
    scopes: list[Scope]
    tenant: str | None = None  # limits it to the connections of one tenant
    days: int | None = None  # None: it is good until it is revoked


class KeyResource:
    """List, create, revoke: with the scope `admin`, and for those who see every tenant."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        services = self._services
        return [
            endpoint(
                services, "GET", "/keys", self.list, scope="admin",
                answer=Shape(beside={"data": Shape(kind=ApiKey, is_list=True)}),
            ),
            endpoint(
                services, "POST", "/keys", self.create, scope="admin", body=NewKey, status=201, is_repeatable=False,
                answer=Shape(beside={"key": str, "api_key": Shape(kind=ApiKey)}),
            ),
            endpoint(services, "DELETE", "/keys/{key:int}", self.revoke, scope="admin", status=204),
        ]  # fmt: skip

    async def list(self, request: Request, caller: Caller) -> Any:
        """All keys, newest first, expired ones included; none of them itself."""
        require_all(caller)
        Query(request).done()
        return {"data": await self._services.store.api_keys()}

    async def create(self, request: Request, caller: Caller) -> Response:
        """Make a key; the answer is the only one that holds it."""
        Query(request).done()
        wanted = await json_body(request, NewKey)
        key, made = await make_key(self._services.store, self._services.clock, caller, wanted)
        return json_response({"key": key, "api_key": made}, status=201)

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """Let a key open nothing any more."""
        Query(request).done()
        await revoke_key(self._services.store, self._services.clock, caller, request.path_params["key"])
        return Response(status_code=204, headers={"Cache-Control": "no-store"})


async def make_key(store: Store, clock: Clock, caller: Caller, wanted: NewKey) -> tuple[str, ApiKey]:
    """A new key, and what is stored of it; audited.

    Raises `UsageError` for words that will not do, and `ProblemError` 403 for scopes that the caller has not: nobody
    gives more than they have.
    """
    require_all(caller)
    name = one_line(wanted.name.strip())
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise UsageError(f"The key needs a name of at most {NAME_CHARACTERS_MAX} characters.")
    scopes: Sequence[str] = [one for one in get_args(Scope) if one in wanted.scopes]
    if not scopes:
        raise UsageError("Choose what the key may do.")
    if wanted.days is not None and not 1 <= wanted.days <= DAYS_MAX:
        raise UsageError(f"A key expires after 1 to {DAYS_MAX} days.")
    if wanted.tenant is not None and not 0 < len(wanted.tenant) <= TENANT_CHARACTERS_MAX:
        raise UsageError(f"A tenant has at most {TENANT_CHARACTERS_MAX} characters.")
    require_to_give(caller, scopes)
    key, at = new_api_key(), clock.now()
    expires_at = at + timedelta(days=wanted.days) if wanted.days else None
    made = await store.add_api_key(
        name=name, hash=api_key_hash(key), scopes=scopes, tenant=wanted.tenant, at=at, expires_at=expires_at
    )
    detail = {"key": made.id, "scopes": scopes, "tenant": wanted.tenant, "days": wanted.days}
    await store.audit(at=at, actor=caller.name, act="keys.create", target=name, detail=detail)
    return key, made


async def revoke_key(store: Store, clock: Clock, caller: Caller, key_id: int) -> None:
    """Forget a key; audited. Raises `ProblemError` 404."""
    require_all(caller)
    found = next((one for one in await store.api_keys() if one.id == key_id), None) if key_id <= INTEGER_MAX else None
    note = AuditNote(
        at=clock.now(),
        actor=caller.name,
        act="keys.revoke",
        target=found.name if found else "",
        detail={"key": key_id},
    )
    if found is None or not await store.revoke_api_key(key_id, note=note):
        raise not_found("key")
