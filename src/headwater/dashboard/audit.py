"""`/audit`: who did what to what, with which filter and count, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from headwater.api.access import Caller, require_all
from headwater.api.endpoint import entry_of, listing
from headwater.api.query import Query
from headwater.dashboard.csv import Table
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.intention import AuditEntry, AuditFilter

COLUMNS = ("id", "at", "actor", "act", "target", "detail")
# Families of acts that the page offers; any other word may stand in the URL.
FAMILIES = (
    "accounts", "sessions", "keys", "connections", "streams", "runs", "backfills", "deliveries", "quarantine",
    "payloads", "deploy", "rollback",
)  # fmt: skip
_WORDS = {
    "accounts.setup": "became the first admin", "accounts.add": "added an account",
    "accounts.invite": "made a link for", "accounts.accept": "set a first password",
    "accounts.factor": "set a second factor of", "accounts.factor_off": "took the second factor from",
    "accounts.recovery": "made recovery codes for", "accounts.recovery_used": "used a recovery code of",
    "accounts.password": "set a new password", "accounts.role": "changed the role", "accounts.disable": "disabled",
    "accounts.enable": "enabled", "sessions.begin": "signed in", "connections.add": "connected",
    "connections.remove": "removed", "connections.set": "changed settings of",
    "connections.secret": "set a secret of", "sessions.end": "ended sessions",
    "sessions.refuse": "was refused at the login as", "keys.create": "made the key", "keys.revoke": "revoked the key",
    "keys.rotate": "put a new master key first", "payloads.reveal": "looked at",
}  # fmt: skip


def routes(screens: Screens) -> list[Route]:
    """The list."""

    async def show(request: Request, caller: Caller) -> Answer:
        require_all(caller)
        query = Query(request)
        which = AuditFilter(
            actor=query.text("actor"),
            act=query.text("act"),
            target=query.text("target"),
            since=query.instant("since"),
            until=query.instant("until"),
        )
        after, limit = query.integer("after", low=1), query.limit()
        finish(query, is_list=True)
        found = await screens.store.audit_log(which, after=after, limit=limit)
        twin = listing([entry_of(one) for one in found], limit=limit, cursor=lambda one: one["id"])
        values: dict[str, Any] = {
            "entries": [(one, words_of(one.act), facts_of(one.detail)) for one in found],
            "which": which,
            "families": FAMILIES,
            "next_cursor": twin["next_cursor"],
        }
        table = Table(name="audit", columns=COLUMNS, rows=[row_of(one) for one in found])
        return Answer(template="audit.html", values=values, twin=twin, table=table)

    return [screens.route("/audit", show, scope="operate")]


def words_of(act: str) -> str:
    """An act in words; its name where there are none for it."""
    return _WORDS.get(act, act)


def facts_of(detail: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is told beside an act, as short words; what is empty is left out."""
    return [
        (name, value if isinstance(value, str) else msgspec.json.encode(value).decode())
        for name, value in detail.items()
        if value not in (None, "", [], {})
    ]


def row_of(one: AuditEntry) -> tuple[Any, ...]:
    """An entry as a row of `COLUMNS`."""
    return one.id, one.at, one.actor, one.act, one.target, msgspec.json.encode(dict(one.detail)).decode()
