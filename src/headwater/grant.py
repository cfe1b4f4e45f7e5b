"""How an account authorises us by OAuth 2.0, the tokens that come of it, and what a store promises of them.

declared ──> authorise (code with PKCE, state) ──> token ──> refreshed under a lease, stored before it is used
                                                     └──> refused by the provider: the connection needs its operator
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

import msgspec

TOKEN_FIELD = "oauth:token"  # noqa: S105  the name under which it is sealed, which no settings field can have
FRESH_SECONDS = 60.0  # a token that ends sooner is renewed before it is used
LEASE_SECONDS = 60.0  # of one refresh; longer than its request may take
AUTHORIZATION_SECONDS = 600.0  # from the start to the callback
DEFAULT_SECONDS = 3600.0  # of a token whose provider does not say how long it is good for
TOKEN_CHARACTERS_MAX = 16 * 1024

_Url = Annotated[str, msgspec.Meta(pattern=r"^(https?://[^\s#]+|\{settings\.\w+\}[^\s#]*)$", max_length=2_000)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class OAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `oauth` of a manifest's `Connection`: the authorization code grant of RFC 6749 with PKCE (RFC 7636)."""

    authorize_url: _Url  # where the owner says yes; may begin with `{settings.field}`
    token_url: _Url  # where codes and refresh tokens become access tokens
    revoke_url: _Url | None = None  # where tokens are withdrawn (RFC 7009) when it is disconnected; None: nowhere
    client_id: _Name = "client_id"  # the settings field that holds it
    client_secret: _Name | None = "client_secret"  # noqa: S105  the secret field that holds it; None for a public client
    scopes: tuple[str, ...] = ()  # what is asked for
    client_auth: Literal["basic", "post"] = "basic"  # how the client proves itself at the token URL
    pkce: bool = True  # send a challenge (S256)
    issuer: str | None = None  # what an `iss` of the callback must be (RFC 9207)
    params: dict[str, str] = msgspec.field(
        default_factory=dict
    )  # further parameters of the authorize URL, such as access_type=offline


def oauth_of(declared: Mapping[str, Any] | None) -> OAuth | None:
    """A declaration as a value; `ValueError` that says what is wrong with it."""
    if declared is None:
        return None
    try:
        return msgspec.convert(dict(declared), OAuth)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def completed(url: str, settings: Mapping[str, Any]) -> str:
    """A declared URL with the origin of its setting; `ValueError` where that is not set."""
    if not url.startswith("{settings."):
        return url
    name, _, rest = url.removeprefix("{settings.").partition("}")
    origin = settings.get(name)
    if not isinstance(origin, str) or urlsplit(origin).scheme not in ("http", "https"):
        raise ValueError(f"the setting `{name}` holds no address")
    return origin.rstrip("/") + rest


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider gave us. Its repr shows none of it."""

    access_token: str
    refresh_token: str | None = None
    expires_at: datetime | None = None
    scope: str = ""

    def __repr__(self) -> str:
        return f"Token(expires_at={self.expires_at!r}, scope={self.scope!r})"

    def is_fresh(self, at: datetime) -> bool:
        """Whether it is still good for a request made at `at`."""
        return self.expires_at is None or self.expires_at - at > timedelta(seconds=FRESH_SECONDS)

    def sealed_text(self) -> str:
        """The text that is encrypted."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def of_text(cls, text: str) -> Token:
        """The token of a decrypted text."""
        return msgspec.json.decode(text, type=cls)


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """One that was begun, and not finished."""

    connection_id: int
    sealed: str  # what the callback needs, encrypted


class GrantStore(Protocol):
    """Grants: their tokens are secrets of their connections."""

    async def begin_authorization(
        self, state: bytes, authorization: Authorization, *, at: datetime, expires_at: datetime
    ) -> None:
        """Keep what the callback needs under the hash of its state; forgets those that ran out."""
        ...

    async def take_authorization(self, state: bytes, *, at: datetime) -> Authorization | None:
        """What was kept, once; None when there is none, or it ran out."""
        ...

    async def lease_grant(
        self, connection_id: int, *, at: datetime, lease_seconds: float, takes_over: bool = False
    ) -> int | None:
        """The right to change a connection's token, as an epoch; None while another holds it, unless `takes_over`."""
        ...

    async def put_grant(self, connection_id: int, *, epoch: int, name: str, ciphertext: str | None) -> bool:
        """Put the token (None: take it away) and let the lease go; False, and nothing, when the epoch moved on."""
        ...

    async def release_grant(self, connection_id: int, *, epoch: int) -> None:
        """Let a lease go without a change."""
        ...
