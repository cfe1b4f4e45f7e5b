"""`/keys`: keys of the HTTP API, each shown once; for admins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.api.access import Caller, Scope, api_key_hash, new_api_key, require_all
from headwater.api.csrf import form_of
from headwater.api.endpoint import entry_of
from headwater.api.problem import not_found
from headwater.api.query import Query
from headwater.dashboard.csv import Table
from headwater.dashboard.login import see_other
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.errors import UsageError
from headwater.intention import AuditNote
from headwater.redaction import one_line

SCOPES: Sequence[Scope] = get_args(Scope)
# What each lets its holder do, in words.
MEANINGS = {
    "read": "see health, runs, deliveries and records",
    "payloads": "see what providers sent, too",
    "operate": "act: run, pause, replay, backfill",
    "deploy": "bring connector code",
    "admin": "manage accounts and keys",
}
DAYS = (30, 90, 365)
NAME_CHARACTERS_MAX = 100
COLUMNS = ("id", "name", "scopes", "tenant", "created_at", "last_used_at", "expires_at")


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """What a form asks for."""

    name: str
    scopes: tuple[str, ...]
    tenant: str | None
    days: int | None  # None: until it is revoked


def routes(screens: Screens) -> list[Route]:
    """The list, the form, and revoking."""
    made = _Keys(screens)
    return [
        screens.route("/keys", made.show, scope="admin"),
        screens.route("/keys", made.create, scope="admin", methods=["POST"]),
        screens.route("/keys/{key:int}/revoke", made.revoke, scope="admin", methods=["POST"]),
    ]


class _Keys:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens

    async def show(self, request: Request, caller: Caller) -> Answer:
        """All keys, newest first."""
        require_all(caller)
        finish(Query(request), is_list=True)
        return await self._list()

    async def create(self, request: Request, caller: Caller) -> Response:
        """Make a key; the answer shows it, and nothing else ever does."""
        require_all(caller)
        form = await form_of(request)
        try:
            wanted = _read(form)
        except UsageError as error:
            return await self._page(request, caller, status=422, problem=str(error), given=form)
        key, at = new_api_key(), self._screens.clock.now()
        expires_at = at + timedelta(days=wanted.days) if wanted.days else None
        made = await self._screens.store.add_api_key(
            name=wanted.name,
            hash=api_key_hash(key),
            scopes=wanted.scopes,
            tenant=wanted.tenant,
            at=at,
            expires_at=expires_at,
        )
        detail = {"key": made.id, "scopes": list(wanted.scopes), "tenant": wanted.tenant, "days": wanted.days}
        await self._screens.store.audit(at=at, actor=caller.name, act="keys.create", target=wanted.name, detail=detail)
        return await self._page(request, caller, made=made, key=key)

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """A key opens nothing from now on."""
        require_all(caller)
        store, wanted = self._screens.store, request.path_params["key"]
        found = next((one for one in await store.api_keys() if one.id == wanted), None)
        if found is None:
            raise not_found("key")
        at = self._screens.clock.now()
        note = AuditNote(at=at, actor=caller.name, act="keys.revoke", target=found.name, detail={"key": found.id})
        await store.revoke_api_key(found.id, note=note)
        return see_other("/keys")

    async def _list(self) -> Answer:
        found = await self._screens.store.api_keys()
        entries = [entry_of(one) for one in found]
        tenants = sorted({one.tenant for one in await self._screens.store.connections() if one.tenant})
        values: dict[str, Any] = {
            "keys": found, "scopes": [(name, MEANINGS[name]) for name in SCOPES], "tenants": tenants, "days": DAYS,
            "made": None, "key": "", "problem": "", "given": {},
        }  # fmt: skip
        rows = [[" ".join(one[name]) if name == "scopes" else one[name] for name in COLUMNS] for one in entries]
        table = Table(name="keys", columns=COLUMNS, rows=rows)
        return Answer(template="keys.html", values=values, twin={"keys": entries}, table=table)

    async def _page(self, request: Request, caller: Caller, *, status: int = 200, **changes: Any) -> Response:
        found = await self._list()
        return self._screens.render(
            request, found.template, caller=caller, status=status, **{**found.values, **changes}
        )


def _read(form: dict[str, str]) -> NewKey:
    name = one_line(form.get("name", "").strip())
    if not 0 < len(name) <= NAME_CHARACTERS_MAX:
        raise UsageError(f"The key needs a name of at most {NAME_CHARACTERS_MAX} characters.")
    scopes = tuple(one for one in SCOPES if form.get(f"scope-{one}"))
    if not scopes:
        raise UsageError("Choose what the key may do.")
    days = form.get("days", "")
    if days not in ("", *map(str, DAYS)):
        raise UsageError("Choose when the key expires.")
    return NewKey(
        name=name, scopes=scopes, tenant=form.get("tenant", "").strip() or None, days=int(days) if days else None
    )
