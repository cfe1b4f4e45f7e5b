"""`/accounts`: who may sign in to the dashboard, in which role; the same acts as those of its page."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.account import NEVER_SHOWN, ROLE_SCOPES, Account, Role
from headwater.api.access import Caller, require_all, require_to_give
from headwater.api.endpoint import Services, endpoint, entry_of, json_response
from headwater.api.operation import Shape
from headwater.api.problem import not_found
from headwater.api.query import Query, json_body
from headwater.door import Door

ACCOUNT = Shape(kind=Account, without=NEVER_SHOWN, beside={"state": str})
INVITED = Shape(beside={"setup_path": str, "account": ACCOUNT})


class NewAccount(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Whom to invite."""

    email: str
    name: str = ""  # "": the beginning of the email
    role: Role = "viewer"


class AccountChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise."""

    role: Role | None = None
    enabled: bool | None = None


class AccountResource:
    """List, invite, change, sign out: with the scope `admin`, and for those who see every tenant."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._door = Door(store=services.store, clock=services.clock)

    def routes(self) -> list[Route]:
        """The routes of this resource."""
        services, one = self._services, "/accounts/{account:int}"
        return [
            endpoint(
                services, "GET", "/accounts", self.accounts, scope="admin",
                answer=Shape(beside={"data": Shape(**{**vars(ACCOUNT), "is_list": True})}),
            ),
            endpoint(
                services, "POST", "/accounts", self.invite, scope="admin", body=NewAccount, status=201,
                is_repeatable=False, answer=INVITED,
            ),
            endpoint(services, "PATCH", one, self.change, scope="admin", body=AccountChange, answer=ACCOUNT),
            endpoint(
                services, "POST", f"{one}/invite", self.invite_again, scope="admin", is_repeatable=False, answer=INVITED
            ),
            endpoint(
                services, "POST", f"{one}/end-sessions", self.end_sessions, scope="admin",
                answer=Shape(beside={"ended": int}),
            ),
            endpoint(
                services, "POST", f"{one}/reset-factor", self.reset_factor, scope="admin",
                answer=Shape(beside={"reset": bool}),
            ),
        ]  # fmt: skip

    async def accounts(self, request: Request, caller: Caller) -> Any:
        """All accounts, by email."""
        require_all(caller)
        Query(request).done()
        return {"data": [_entry(one) for one in await self._services.store.accounts()]}

    async def invite(self, request: Request, caller: Caller) -> Response:
        """Invite somebody, who sets a password at `setup_path`; the answer is the only one that holds it.

        It is good once, for a day.
        """
        require_all(caller)
        Query(request).done()
        wanted = await json_body(request, NewAccount)
        require_to_give(caller, ROLE_SCOPES[wanted.role])
        account, token = await self._door.invite(
            email=wanted.email, name=wanted.name, role=wanted.role, actor=caller.name
        )
        return json_response(_invited(account, token), status=201)

    async def change(self, request: Request, caller: Caller) -> Any:
        """Give another role, disable or enable; a disabled account's sessions end at once."""
        account = await self._named(request, caller)
        wanted = await json_body(request, AccountChange)
        if wanted.role is not None:
            require_to_give(caller, ROLE_SCOPES[wanted.role])
            account = await self._door.change_role(account, wanted.role, actor=caller.name)
        if wanted.enabled is not None:
            account = await self._door.change_enabled(account, enabled=wanted.enabled, actor=caller.name)
        return _entry(account)

    async def invite_again(self, request: Request, caller: Caller) -> Any:
        """Another path to set a password at; the one before is good no longer."""
        account = await self._named(request, caller)
        require_to_give(caller, ROLE_SCOPES[account.role])
        return _invited(account, await self._door.invite_again(account, actor=caller.name))

    async def end_sessions(self, request: Request, caller: Caller) -> Any:
        """Sign somebody out everywhere."""
        return {"ended": await self._door.end_sessions(await self._named(request, caller), actor=caller.name)}

    async def reset_factor(self, request: Request, caller: Caller) -> Any:
        """Forget somebody's second factor, such as of a phone that is lost: the password alone lets in again."""
        account = await self._named(request, caller)
        require_to_give(caller, ROLE_SCOPES[account.role])
        return {"reset": await self._door.reset_factor(account, actor=caller.name)}

    async def _named(self, request: Request, caller: Caller) -> Account:
        require_all(caller)
        Query(request).done()
        wanted = request.path_params["account"]
        found = next((one for one in await self._services.store.accounts() if one.id == wanted), None)
        if found is None:
            raise not_found("account")
        return found


def _entry(account: Account) -> dict[str, Any]:
    return {**entry_of(account, without=NEVER_SHOWN), "state": account.state}


def _invited(account: Account, token: str) -> dict[str, Any]:
    return {"setup_path": f"/setup?token={token}", "account": _entry(account)}
