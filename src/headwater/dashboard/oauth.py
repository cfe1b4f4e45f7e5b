"""`/connections/{key}/authorize` and `/oauth/callback`: an account's owner says yes at the provider, and comes back.

press Connect ──> state in a cookie of this browser, its hash in the store ──> provider ──> callback
                                       └── both must meet, once and in time ──> code ──> token, sealed
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headwater.acts.act import Desk
from headwater.api.access import Caller, visible_connection
from headwater.api.problem import ProblemError
from headwater.dashboard.login import see_other
from headwater.dashboard.screen import Screens
from headwater.errors import HeadwaterError, UsageError
from headwater.grant import AUTHORIZATION_SECONDS, Authorization
from headwater.intention import StoredConnection
from headwater.redaction import one_line
from headwater.tokens import Tokens

CALLBACK = "/oauth/callback"
STATE_BYTES = 32
VERIFIER_BYTES = 48
COOKIE = "__Host-headwater-oauth"
COOKIE_ON_LOOPBACK = "headwater-oauth"  # over http a browser keeps no Secure cookie
SAID_CHARACTERS_MAX = 300  # of the provider's own words


class _Kept(msgspec.Struct, frozen=True):
    """What the callback needs, sealed while the browser is away."""

    verifier: str
    redirect_uri: str


def routes(screens: Screens) -> list[Route]:
    """The way out, and the way back."""
    made = _OAuth(screens)
    return [
        screens.route("/connections/{key}/authorize", made.begin, scope="operate", methods=["POST"]),
        screens.route(CALLBACK, made.finish, scope="operate"),
    ]


class _OAuth:
    """The handlers."""

    def __init__(self, screens: Screens) -> None:
        self._screens = screens

    async def begin(self, request: Request, caller: Caller) -> Response:
        """A page that leads on to the provider: a form may not (`form-action`), a link may."""
        stored = await visible_connection(caller, self._screens.store, request.path_params["key"])
        desk = self._screens.services.desk(caller)
        tokens = await _tokens(desk, stored)
        state, verifier = secrets.token_urlsafe(STATE_BYTES), secrets.token_urlsafe(VERIFIER_BYTES)
        redirect_uri = desk.base_url + CALLBACK
        url = tokens.authorize_url(state=state, verifier=verifier, redirect_uri=redirect_uri)
        kept = msgspec.json.encode(_Kept(verifier, redirect_uri)).decode()
        at, hashed = desk.clock.now(), _hash(state)
        await desk.store.begin_authorization(
            hashed,
            Authorization(connection_id=stored.id, sealed=desk.at_work().key_ring.encrypt(kept, aad=_aad(hashed))),
            at=at,
            expires_at=at + timedelta(seconds=AUTHORIZATION_SECONDS),
        )
        page = self._screens.render(request, "authorize.html", caller=caller, url=url, stored=stored)
        name = _cookie(request)
        page.set_cookie(
            name, state, max_age=int(AUTHORIZATION_SECONDS), path="/", secure=name == COOKIE, httponly=True,
            samesite="lax",
        )  # fmt: skip
        return page

    async def finish(self, request: Request, caller: Caller) -> Response:
        """Take the code, and exchange it. What is wrong is told, and nothing is kept."""
        given, desk = request.query_params, self._screens.services.desk(caller)
        state = given.get("state", "")
        name = _cookie(request)
        held = request.cookies.get(name, "")
        if not state or not compare_digest(state.encode(), held.encode()):
            raise ProblemError(
                400, "This answer belongs to another browser, or to nobody.", code="request.oauth_state",
                hint="Press Connect on the settings page again.",
            )  # fmt: skip
        hashed = _hash(state)
        begun = await desk.store.take_authorization(hashed, at=desk.clock.now())
        stored = None if begun is None else await self._connection(caller, begun.connection_id)
        if begun is None or stored is None:
            raise ProblemError(
                400, "This authorization was used before, or has run out.", code="request.oauth_state",
                hint="Press Connect on the settings page again.",
            )  # fmt: skip
        tokens = await _tokens(desk, stored)
        if (error := given.get("error")) is not None:
            said = one_line(f"{error}: {given.get('error_description', '')}"[:SAID_CHARACTERS_MAX]).rstrip(": ")
            raise ProblemError(400, f"The provider said no: {said}.", code="request.oauth_refused")
        if tokens.oauth.issuer is not None and given.get("iss", tokens.oauth.issuer) != tokens.oauth.issuer:
            raise ProblemError(400, "This answer comes from another issuer.", code="request.oauth_issuer")
        if not given.get("code"):
            raise ProblemError(400, "The provider gave no code.", code="request.oauth_refused")
        kept = msgspec.json.decode(desk.at_work().key_ring.decrypt(begun.sealed, aad=_aad(hashed)), type=_Kept)
        token = await tokens.exchange(given["code"], verifier=kept.verifier, redirect_uri=kept.redirect_uri)
        await tokens.keep(token)
        at = desk.clock.now()
        await desk.store.resume_connection(stored.id, at=at)
        detail: dict[str, Any] = {"did": f"{stored.key} is authorised.", "scope": token.scope}
        await desk.store.audit(at=at, actor=desk.actor, act="connections.authorize", target=stored.key, detail=detail)
        desk.wake()
        answer = see_other(f"/connections/{stored.key}/settings")
        answer.delete_cookie(name, path="/", secure=name == COOKIE, httponly=True, samesite="lax")
        return answer

    async def _connection(self, caller: Caller, connection_id: int) -> StoredConnection | None:
        for one in await self._screens.store.connections():
            if one.id == connection_id and (caller.tenant is None or one.tenant == caller.tenant):
                return one
        return None


async def _tokens(desk: Desk, stored: StoredConnection) -> Tokens:
    try:
        tokens = (await desk.live(stored.key)).tokens
    except HeadwaterError as error:
        raise UsageError(str(error)) from error
    if not isinstance(tokens, Tokens):
        raise UsageError(f"{stored.key} is not authorised by OAuth.")
    return tokens


def _cookie(request: Request) -> str:
    return COOKIE if request.url.scheme == "https" else COOKIE_ON_LOOPBACK


def _hash(state: str) -> bytes:
    return sha256(state.encode()).digest()


def _aad(hashed: bytes) -> str:
    return f"oauth:state:{hashed.hex()}"
