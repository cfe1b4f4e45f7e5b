"""`/accounts`: who may sign in, in which role; for admins."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.account import INVITATION_SECONDS, NEVER_SHOWN, ROLE_SCOPES, ROLES, Account
from headwater.api.access import Caller, require_all, require_to_give
from headwater.api.csrf import form_of
from headwater.api.endpoint import entry_of
from headwater.api.problem import not_found
from headwater.api.query import Query
from headwater.dashboard.csv import Table
from headwater.dashboard.login import see_other
from headwater.dashboard.screen import Answer, Screens, finish
from headwater.door import Door
from headwater.errors import ConflictError, UsageError

COLUMNS = ("email", "name", "role", "state", "created_at", "last_login_at")


def routes(screens: Screens) -> list[Route]:
    """The list, and what is done to one of it; none where nobody signs in here."""
    if screens.door is None:
        return []
    made = _Accounts(screens, screens.door)
    acts = {
        "role": made.role, "enabled": made.enabled, "invite": made.invite_again, "sessions/end": made.end_sessions,
        "factor/reset": made.reset_factor,
    }  # fmt: skip
    return [
        screens.route("/accounts", made.show, scope="admin"),
        screens.route("/accounts", made.add, scope="admin", methods=["POST"]),
        *(
            screens.route(f"/accounts/{{account:int}}/{path}", act, scope="admin", methods=["POST"])
            for path, act in acts.items()
        ),
    ]


class _Accounts:
    """The handlers, over one door."""

    def __init__(self, screens: Screens, door: Door) -> None:
        self._screens = screens
        self._door = door

    async def show(self, request: Request, caller: Caller) -> Answer:
        """All accounts."""
        require_all(caller)
        finish(Query(request), is_list=True)
        return await self._list()

    async def add(self, request: Request, caller: Caller) -> Response:
        """Invite somebody; the answer shows the link, and nothing else ever does."""
        require_all(caller)
        form = await form_of(request)
        email, name, role = form.get("email", ""), form.get("name", ""), form.get("role", "")
        try:
            if role not in ROLES:
                raise UsageError("Choose a role.")
            require_to_give(caller, ROLE_SCOPES[role])
            account, token = await self._door.invite(email=email, name=name, role=role, actor=caller.name)
        except (UsageError, ConflictError) as error:
            given = {"problem": str(error), "email": email, "name": name, "role": role}
            return await self._page(request, caller, status=422, **given)
        return await self._page(request, caller, invited=account, link=self._link(request, token))

    async def invite_again(self, request: Request, caller: Caller) -> Response:
        """Another link to set a password by."""
        account = await self._named(request, caller)
        require_to_give(caller, ROLE_SCOPES[account.role])
        token = await self._door.invite_again(account, actor=caller.name)
        return await self._page(request, caller, invited=account, link=self._link(request, token))

    async def role(self, request: Request, caller: Caller) -> Response:
        """Another role."""
        account, role = await self._named(request, caller), (await form_of(request)).get("role", "")
        if role not in ROLES:
            raise UsageError("There is no such role.")
        require_to_give(caller, ROLE_SCOPES[role])
        await self._door.change_role(account, role, actor=caller.name)
        return see_other("/accounts")

    async def enabled(self, request: Request, caller: Caller) -> Response:
        """Disable or enable."""
        account, wanted = await self._named(request, caller), (await form_of(request)).get("enabled", "")
        if wanted not in ("true", "false"):
            raise UsageError("`enabled` is true or false.")
        await self._door.change_enabled(account, enabled=wanted == "true", actor=caller.name)
        return see_other("/accounts")

    async def end_sessions(self, request: Request, caller: Caller) -> Response:
        """Sign somebody out everywhere."""
        await self._door.end_sessions(await self._named(request, caller), actor=caller.name)
        return see_other("/accounts")

    async def reset_factor(self, request: Request, caller: Caller) -> Response:
        """Forget somebody's second factor."""
        account = await self._named(request, caller)
        require_to_give(caller, ROLE_SCOPES[account.role])
        await self._door.reset_factor(account, actor=caller.name)
        return see_other("/accounts")

    async def _named(self, request: Request, caller: Caller) -> Account:
        require_all(caller)
        wanted = request.path_params["account"]
        found = next((one for one in await self._door.store.accounts() if one.id == wanted), None)
        if found is None:
            raise not_found("account")
        return found

    async def _list(self) -> Answer:
        found = await self._door.store.accounts()
        entries = [{**entry_of(one, without=NEVER_SHOWN), "state": one.state} for one in found]
        values: dict[str, Any] = {
            "accounts": entries, "roles": ROLES, "link": None, "invited": None, "problem": "", "email": "",
            "name": "", "role": "viewer", "hours": INVITATION_SECONDS // 3600,
        }  # fmt: skip
        table = Table(name="accounts", columns=COLUMNS, rows=[[one[name] for name in COLUMNS] for one in entries])
        return Answer(template="accounts.html", values=values, twin={"accounts": entries}, table=table)

    async def _page(self, request: Request, caller: Caller, *, status: int = 200, **changes: Any) -> Response:
        found = await self._list()
        return self._screens.render(
            request, found.template, caller=caller, status=status, **{**found.values, **changes}
        )

    def _link(self, request: Request, token: str) -> str:
        return f"{request.url.scheme}://{request.url.netloc}/setup?token={token}"
