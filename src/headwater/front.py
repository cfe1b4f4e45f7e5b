"""What every request for pages and API passes first: where it came from, how large its head is, and HTTPS kept.

A proxy's words are believed only where its address is among `trusted_proxies`: then the last of `X-Forwarded-Proto` is
the scheme, the last address in `X-Forwarded-For` that is no trusted proxy is the client, and the last of
`X-Forwarded-Host` is the host. From anybody else these headers are nothing. Deliveries pass by: they prove themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, MutableMapping, Sequence
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.api.csrf import asking
from headwater.api.problem import problem_response

HEADERS_MAX = 100
HEADER_BYTES_MAX = 32 * 1024  # of all headers together
TARGET_BYTES_MAX = 16 * 1024  # path and query
HOPS_MAX = 20  # addresses of `X-Forwarded-For` that are looked at, from the nearest
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# The URL by which the request under way came in by a trusted proxy; None where nobody told, or `public_url` says it.
seen_as: ContextVar[str | None] = ContextVar("seen_as", default=None)


class Front:
    """See above; `public_url` is how the world reaches us, where that is configured."""

    def __init__(self, app: ASGIApp, *, trusted: Sequence[Network] = (), public_url: str | None = None) -> None:
        self._app = app
        self._trusted = tuple(trusted)
        self._has_public_url = public_url is not None
        public = urlsplit(public_url or "")
        # Whoever asks for the host of an https `public_url` came by the TLS in front of us, even if nobody says so.
        self._https_host = public.netloc.lower().encode() if public.scheme == "https" else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asking.set(None)
        seen_as.set(None)
        refusal = _refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        scope = self._as_seen(scope)
        await self._app(scope, receive, _with_hsts(send) if scope["scheme"] == "https" else send)

    def _as_seen(self, scope: Scope) -> Scope:
        told = forwarded(scope, self._trusted)
        if told:
            scope = {**scope, **told}
        if self._https_host is not None and _header(scope["headers"], b"host").lower() == self._https_host:
            scope = {**scope, "scheme": "https"}
        if told and not self._has_public_url:
            seen_as.set(f"{scope['scheme']}://{_header(scope['headers'], b'host').decode('latin-1')}")
        return scope


def forwarded(scope: MutableMapping[str, Any], trusted: Sequence[Network]) -> dict[str, Any]:
    """What a trusted proxy says of a request, as changes of its scope; none where whoever connected is not trusted."""
    client = scope.get("client")
    peer = _address(client[0]) if client else None
    if peer is None or not _is_in(peer, trusted):
        return {}
    headers = scope["headers"]
    changes: dict[str, Any] = {}
    hops = [part for value in _all(headers, b"x-forwarded-for") for part in value.decode("latin-1").split(",")]
    for hop in reversed(hops[-HOPS_MAX:]):
        address = _address(hop.strip())
        if address is None:
            break
        changes["client"] = (str(address), 0)
        if not _is_in(address, trusted):
            break
    scheme = _last(headers, b"x-forwarded-proto").lower()
    if scheme in (b"http", b"https"):
        changes["scheme"] = scheme.decode()
    if host := _last(headers, b"x-forwarded-host"):
        changes["headers"] = [(b"host", host), *(one for one in headers if one[0] != b"host")]
    return changes


def _refusal(scope: Scope) -> Any:
    headers = scope["headers"]
    if len(headers) > HEADERS_MAX or sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES_MAX:
        return problem_response(status=431, code="request.headers", detail="The headers are too many or too large.")
    if len(scope["raw_path"] or b"") + len(scope["query_string"]) > TARGET_BYTES_MAX:
        return problem_response(status=414, code="request.uri_too_long", detail="The URL is too long.")
    if _CONTROL.search(scope["path"]):
        # No name holds one, and no route would match it: nothing here may answer for it in its own way.
        return problem_response(status=404, code="request.not_found", detail="There is nothing at this path.")
    if len(_all(headers, b"host")) > 1:
        return problem_response(status=400, code="request.host", detail="The request names two hosts.")
    return None


def _with_hsts(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], HSTS]}
        await send(message)

    return sending


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text.strip("[]"))
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _all(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for one, value in headers if one == name]


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next(iter(_all(headers, name)), b"")


def _last(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return b",".join(_all(headers, name)).rpartition(b",")[2].strip()
