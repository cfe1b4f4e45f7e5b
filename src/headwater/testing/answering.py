"""What a connector's tests talk to instead of the provider: any transport, an ASGI app, or a table of answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headwater.in_process import ASGIApp, answering
from headwater.jsonvalue import JSONValue
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

__all__ = ["ASGIApp", "Provider", "SentEvent", "answering", "pages"]

_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True, kw_only=True)
class SentEvent:
    """A webhook delivery as the provider would send it; the kit signs it."""

    body: bytes
    event_type: str | None = None  # for schemes that tell it in a header
    provider_id: str | None = None  # likewise; made up where it is None


@dataclass(frozen=True, kw_only=True)
class Provider:
    """A provider for a connector's tests: what answers its requests, an account of it, and the events of that account.

    The standard suite asks for a fresh one for each test: the same content each time.
    """

    transport: Transport
    settings: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    events: Sequence[SentEvent] = ()  # in the order in which they happened
    at: datetime | None = None  # the present instant at the provider; None: the real one
    # Changes the account a little, as other people do while it is read: one object more, one less, one changed.
    shift: Callable[[], object] | None = None
    # Told the present instant before each request, where the account has a clock that goes on.
    tell_time: Callable[[datetime], object] | None = None


def pages(answers: Mapping[str, JSONValue | Sequence[JSONValue]]) -> Transport:
    """The transport that answers by path: a JSON value, or a list of them, one for each time that it is asked.

    The last one of a list is given again and again. An unknown path is answered 404.
    """
    asked: dict[str, int] = {}

    async def transport(request: TransportRequest) -> TransportResponse:
        path = urlsplit(request.url).path
        if path not in answers:
            return TransportResponse(status=404, body=b'{"error": "no such path"}')
        found = answers[path]
        if isinstance(found, (list, tuple)):
            number = asked.get(path, 0)
            asked[path] = number + 1
            found = found[min(number, len(found) - 1)]
        headers = Headers([("content-type", "application/json")])
        return TransportResponse(status=200, headers=headers, body=_encode(found))

    return transport
