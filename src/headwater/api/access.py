"""Who calls, and what they may do: their scopes, and the tenant that they are limited to.

read ── payloads (`reveal.py`) ── operate ── deploy ── admin        none of these includes another
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from headwater.api.problem import ProblemError, not_found
from headwater.clock import Clock
from headwater.intention import StoredConnection
from headwater.permission import is_loopback_name
from headwater.redaction import one_line
from headwater.store import Store

# `read` shows everything but what providers sent, `payloads` that too, `admin` is for accounts and keys.
Scope = Literal["read", "payloads", "operate", "deploy", "admin"]
# What somebody without a key may do, where that is allowed at all: to deploy is to run code here, and takes a key.
KEYLESS_SCOPES: tuple[Scope, ...] = ("read", "payloads", "operate")
KEY_PREFIX = "hw_"
KEY_BYTES = 32
KEY_CHARACTERS_MAX = 256
ORIGIN_CHARACTERS_SHOWN = 200
KEY_NOTE_SECONDS = 300  # a key's last use is written down at most so often
FACTOR_NEEDED = "request.second_factor"  # the code of a refusal
FACTOR_PAGE = "/account"  # where one is set up
RELAYED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")  # headers by which a proxy tells that it is one
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

logger = logging.getLogger("headwater.access")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Somebody who proved who they are."""

    name: str
    scopes: frozenset[str]
    tenant: str | None = None  # sees the connections of this tenant alone; None sees all
    is_program: bool = False  # holds a key: what it may see was decided, and written down, when the key was made
    is_person: bool = False  # signed in with a password
    csrf: str = field(default="", repr=False)  # what each form of this session must bring; "" where there is none
    session_id: int | None = None  # of a person
    lacks_factor: bool = False  # a person who has yet to set up the second factor that everybody needs here

    def may(self, scope: Scope) -> bool:
        """Whether the caller has the scope."""
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Refuse with 403 unless the caller has the scope."""
        if self.may(scope):
            return
        if self.lacks_factor:
            raise ProblemError(
                403, "Here everybody needs a second factor.", code=FACTOR_NEEDED, hint=f"Set one up at {FACTOR_PAGE}."
            )
        logger.warning("Refused: %s has no scope %s.", self.name, scope)
        raise ProblemError(
            403,
            f"{'The key ' if self.is_program else ''}`{self.name}` has no `{scope}` scope.",
            code="request.scope",
            hint=f"`headwater keys create NAME --scope {scope}` makes a key that has." if self.is_program else "",
        )


Guard = Callable[[Request], Awaitable[Caller]]  # raises `ProblemError` 401 for nobody


def new_api_key() -> str:
    """A fresh key of 256 random bits: shown once, stored only as its hash."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def api_key_hash(key: str) -> bytes:
    """The SHA-256 by which a key is stored. A random key needs no salt and no slow hash."""
    return sha256(key.encode()).digest()


def key_guard(store: Store, clock: Clock) -> Guard:
    """A guard that asks for `Authorization: Bearer hw_…`."""

    async def guard(request: Request) -> Caller:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key.startswith(KEY_PREFIX) or len(key) > KEY_CHARACTERS_MAX:
            raise unauthorized("This needs an API key.")
        found = await store.api_key(api_key_hash(key), at=clock.now())
        if found is None:
            raise unauthorized("This API key is not known, or has expired.")
        at = clock.now()
        if found.last_used_at is None or (at - found.last_used_at).total_seconds() >= KEY_NOTE_SECONDS:
            await store.note_api_key(found.id, at=at)
        return Caller(name=found.name, scopes=frozenset(found.scopes), tenant=found.tenant, is_program=True)

    return guard


def loopback_guard(fallback: Guard) -> Guard:
    """A guard that lets everybody on this machine do all but deploy, and asks `fallback` about those with a key.

    A web page that the operator happens to visit is somebody on this machine, too: a request whose `Host` is no
    loopback name (DNS rebinding), and an unsafe one that another origin caused, are refused. So is one that came by a
    proxy: who connected is not who asks.
    """
    everybody = Caller(name="local", scopes=frozenset(KEYLESS_SCOPES))

    async def guard(request: Request) -> Caller:
        if "authorization" in request.headers:
            return await fallback(request)
        if not is_loopback_name(request.url.hostname or ""):
            raise unauthorized("This host name needs an API key.")
        if any(name in request.headers for name in RELAYED):
            raise unauthorized("A request that a proxy hands on needs an API key.")
        refuse_cross_site(request)
        return everybody

    return guard


def open_guard(*, scopes: Sequence[Scope] = KEYLESS_SCOPES) -> Guard:
    """A guard that lets everybody do what `scopes` say: behind a proxy that authenticates, and only there.

    The proxy's session is the browser's: an unsafe request that another site caused is refused here, too.
    """
    everybody = Caller(name="public", scopes=frozenset(scopes))

    async def guard(request: Request) -> Caller:
        refuse_cross_site(request)
        return everybody

    return guard


def require_all(caller: Caller) -> None:
    """Refuse with 403 somebody limited to a tenant: what belongs to no connection is not theirs to see."""
    if caller.tenant is not None:
        raise ProblemError(403, "This is for those who see every tenant.", code="request.tenant")


def require_to_give(caller: Caller, scopes: Iterable[str]) -> None:
    """403 for a caller who would give away what they have not: by a key, or as an account's role."""
    if missing := set(scopes) - caller.scopes:
        raise ProblemError(403, f"`{caller.name}` has no {', '.join(sorted(missing))} to give.", code="request.scope")


async def visible(caller: Caller, store: Store) -> dict[str, StoredConnection]:
    """The connections that a caller may see, by key (Invariant 10)."""
    connections = await store.connections()
    return {one.key: one for one in connections if caller.tenant is None or one.tenant == caller.tenant}


async def visible_connection(caller: Caller, store: Store, key: str) -> StoredConnection:
    """One of them; 404 for those of others as for those that do not exist."""
    found = await store.connection(key)
    if found is None or (caller.tenant is not None and found.tenant != caller.tenant):
        raise not_found("connection")
    return found


async def selected(caller: Caller, store: Store, *, connection: str | None, tenant: str | None) -> Sequence[str] | None:
    """The connection keys that a list is limited to by its filters and its caller, sorted; None for all there are."""
    if connection is not None:
        found = await visible_connection(caller, store, connection)
        return [found.key] if tenant is None or found.tenant == tenant else []
    if caller.tenant is None and tenant is None:
        return None
    return sorted(key for key, one in (await visible(caller, store)).items() if tenant is None or one.tenant == tenant)


def unauthorized(message: str) -> ProblemError:
    """The refusal of somebody who did not say who they are."""
    return ProblemError(
        401,
        message,
        code="request.unauthorized",
        hint="Send `Authorization: Bearer hw_…`.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def refuse_cross_site(request: Request) -> None:
    """Refuse with 403 an unsafe request that another site caused."""
    if request.method not in SAFE_METHODS and not _is_same_origin(request):
        origin = one_line(request.headers.get("origin", "")[:ORIGIN_CHARACTERS_SHOWN])
        logger.warning("Refused: %s %s was caused by another site: %s.", request.method, request.url.path, origin)
        raise ProblemError(403, "Another site caused this request.", code="request.cross_site")


def _is_same_origin(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    try:
        return origin is None or urlsplit(origin).netloc == request.url.netloc
    except ValueError:
        return False
