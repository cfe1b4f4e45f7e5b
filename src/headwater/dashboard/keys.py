"""`/keys`: keys of the HTTP API, each shown once; for admins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.api.access import Caller, Scope, require_all
from headwater.api.csrf import form_of
from headwater.api.endpoint import entry_of
from headwater.api.keys import NewKey, make_key, revoke_key
from headwater.api.query import Query
from headwater.dashboard.csv import Table
from headwater.dashboard.login import see_other
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.errors import UsageError

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
COLUMNS = ("id", "name", "scopes", "tenant", "created_at", "last_used_at", "expires_at")


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
            key, made = await make_key(self._screens.store, self._screens.clock, caller, _read(form))
        except UsageError as error:
            return await self._page(request, caller, status=422, problem=str(error), given=form)
        return await self._page(request, caller, made=made, key=key)

    async def revoke(self, request: Request, caller: Caller) -> Response:
        """A key opens nothing from now on."""
        await revoke_key(self._screens.store, self._screens.clock, caller, request.path_params["key"])
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
    days = form.get("days", "")
    if days not in ("", *map(str, DAYS)):
        raise UsageError("Choose when the key expires.")
    return NewKey(
        name=form.get("name", ""),
        scopes=[one for one in SCOPES if form.get(f"scope-{one}")],
        tenant=form.get("tenant", "").strip() or None,
        days=int(days) if days else None,
    )
