"""The guard of people: whose session the cookie is, and that a form of ours caused what is unsafe.

Over https the cookie is `__Host-headwater`: Secure, of this host alone, unseen by scripts, not sent with other sites'
forms. Over http it is `headwater`, and only on a loopback name: nowhere else is a password asked for without TLS.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from headwater.account import ROLE_SCOPES, SESSION_SECONDS_MAX
from headwater.api.access import SAFE_METHODS, Caller, Guard, refuse_cross_site, unauthorized
from headwater.api.csrf import asking, require_csrf
from headwater.api.problem import ProblemError
from headwater.door import Door
from headwater.permission import is_loopback_name

COOKIE = "__Host-headwater"
COOKIE_ON_LOOPBACK = "headwater"  # over http: a browser keeps no Secure cookie there


def door_guard(door: Door, *, by_key: Guard, open_until_first: Guard | None) -> Guard:
    """A guard that asks for a key, or for the session of somebody who signed in.

    While there is no account, `open_until_first` says who may come in without either.
    """

    async def caller_of(request: Request) -> Caller:
        if "authorization" in request.headers:
            return await by_key(request)
        caller = await _session_of(door, request)
        if caller is not None:
            refuse_cross_site(request)
            await require_csrf(request, caller)
            return caller
        if open_until_first is not None and not await door.store.has_account():
            return await open_until_first(request)
        raise unauthorized("This needs an API key, or somebody who signed in.")

    async def guard(request: Request) -> Caller:
        caller = await caller_of(request)
        asking.set(caller)
        return caller

    return guard


def token_of(request: Request) -> str | None:
    """The token of the session that a request's cookie names."""
    name = _cookie_name(request)
    return request.cookies.get(name) if name else None


def set_cookie(request: Request, response: Response, token: str) -> None:
    """Give the browser its session."""
    name = _cookie_name(request)
    assert name is not None, "nobody signs in where no cookie is safe: `require_private`"
    response.set_cookie(
        name, token, max_age=SESSION_SECONDS_MAX, path="/", secure=name == COOKIE, httponly=True, samesite="lax"
    )


def forget_cookie(request: Request, response: Response) -> None:
    """Take it back, with everything else that the browser kept of us."""
    name = _cookie_name(request)
    if name is not None:
        response.delete_cookie(name, path="/", secure=name == COOKIE, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "cookies", "storage"'


def require_private(request: Request) -> None:
    """Refuse with 403 a login where the password and the cookie could be read on their way."""
    if _cookie_name(request) is None:
        raise ProblemError(
            403,
            "Signing in takes https.",
            code="request.insecure",
            hint="Reach this by a proxy with TLS: set `public_url` to its https URL, or name it in `trusted_proxies`.",
        )


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "unknown"


def csrf_of(token: str) -> str:
    """What each form of a session brings: derived from its token, so that it needs no place of its own."""
    return hmac.new(token.encode(), b"csrf", sha256).hexdigest()


async def _session_of(door: Door, request: Request) -> Caller | None:
    token = token_of(request)
    if not token:
        return None
    # A page that renews itself keeps nobody signed in: only a person goes somewhere, or sends a form.
    is_act = request.method not in SAFE_METHODS or request.headers.get("sec-fetch-mode", "navigate") == "navigate"
    found = await door.who(token, is_act=is_act)
    if found is None:
        return None
    session, account = found
    lacks_factor = door.lacks_factor(account)
    return Caller(
        name=account.email,
        scopes=frozenset() if lacks_factor else ROLE_SCOPES[account.role],
        lacks_factor=lacks_factor,
        is_person=True,
        csrf=csrf_of(token),
        session_id=session.id,
    )


def _cookie_name(request: Request) -> str | None:
    if request.url.scheme == "https":
        return COOKIE
    return COOKIE_ON_LOOPBACK if is_loopback_name(request.url.hostname or "") else None
