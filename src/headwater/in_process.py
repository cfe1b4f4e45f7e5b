"""An ASGI app in this process, asked as if it were a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from headwater.errors import ProviderError
from headwater.transport import Headers, Transport, TransportRequest, TransportResponse

Message = MutableMapping[str, Any]
ASGIApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


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
