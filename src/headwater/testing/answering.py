"""What a connector's tests talk to instead of the provider: any transport, an ASGI app, or a table of answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headwater.errors import ProviderError
from headwater.jsonvalue import JSONValue
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

_encode = msgspec.json.Encoder(decimal_format="number").encode

Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


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


def answering(app: ASGIApp) -> Transport:
    """The transport whose every request, whatever its host, is answered by an ASGI app in this process."""

    async def transport(request: TransportRequest) -> TransportResponse:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        try:
            await app(_scope(request), receive, send)
        except ConnectionError as error:
            raise ProviderError("The provider broke the connection.") from error
        start = next(message for message in sent if message["type"] == "http.response.start")
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", ())]
        body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
        return TransportResponse(status=start["status"], headers=Headers(pairs), body=body)

    return transport


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


def _scope(request: TransportRequest) -> dict[str, Any]:
    url = urlsplit(request.url)
    headers = {"host": url.netloc, "content-length": str(len(request.body))}
    headers |= {name.lower(): value for name, value in request.headers.items()}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": url.scheme,
        "method": request.method,
        "path": url.path or "/",
        "raw_path": url.path.encode(),
        "query_string": url.query.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 0),
        "server": (url.hostname, url.port or 443),
    }
