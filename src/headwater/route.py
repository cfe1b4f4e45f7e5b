"""What a route is: an `async def post` (or plain `def`, run in a thread) that declares its auth and takes a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from headwater import jsonvalue
from headwater.jsonvalue import JSONValue
from headwater.run import Window

F = TypeVar("F", bound=Callable[..., Any])

AUTH_ATTRIBUTE = "__headwater_auth__"
API_KEY = "api_key"


def route(*, auth: str) -> Callable[[F], F]:
    """Declare a function as a route whose callers prove themselves by `auth`.

    Sync and setup routes say `api_key`; a webhook route names the signature scheme of its manifest.
    """

    def mark(function: F) -> F:
        setattr(function, AUTH_ATTRIBUTE, auth)
        return function

    return mark


@dataclass(frozen=True, kw_only=True)
class SyncRequest:
    """One page asked of a sync route."""

    stream: str
    cursor: str | None  # where the last committed page left off; None at first
    window: Window | None  # the span asked for: backfills and windowed polls
    limit: int  # records wanted in a page
    partition: str  # "" where the stream has none
    started_at: datetime  # when this page's fetch began: the default `as_of` of its emissions


@dataclass(frozen=True, kw_only=True)
class WebhookRequest:
    """A delivery: verified, stored, and now dispatched."""

    delivery_id: int
    provider_id: str  # the provider's delivery id, or the body's hash
    event_type: str | None  # as far as the scheme knows it
    headers: Mapping[str, str]  # names in lower case, without signatures
    body: bytes
    received_at: datetime
    attempt: int

    def json(self) -> JSONValue:
        """The body as JSON with every digit; `InvalidPayloadError` when it is none."""
        return jsonvalue.decode(self.body)


@dataclass(frozen=True, kw_only=True)
class SetupRequest:
    """A question about a connection's settings, such as whether its credentials work."""

    settings: Mapping[str, JSONValue]  # without the secret fields: those come from `secrets`


@dataclass(frozen=True, kw_only=True)
class Response:
    """What a webhook or setup route answers; `ignored` marks an event that no stream wants."""

    status: int = 200
    body: JSONValue = None
    ignored: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
