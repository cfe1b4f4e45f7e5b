"""HTTP out, for handlers: `from headwater import http`, then `await http.get(url, params=…)`.

Bound to the route being invoked; a plain `def` route, which runs in a thread, says `http.blocking.get(…)`.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Unpack

from headwater.answer import HttpResponse
from headwater.call import Options
from headwater.client import HttpClient, HttpClients
from headwater.context import current
from headwater.errors import OutsideRouteError, ProviderError

__all__ = [
    "HttpClient",
    "HttpClients",
    "HttpResponse",
    "Options",
    "blocking",
    "delete",
    "get",
    "patch",
    "post",
    "put",
    "request",
    "serve_blocking",
]


async def request(method: str, url: str, **options: Unpack[Options]) -> HttpResponse:
    """Send a request on behalf of the connection whose route is being invoked; see `HttpClient.request`."""
    response: HttpResponse = await current("http").http.request(method, url, **options)
    return response


async def get(url: str, **options: Unpack[Options]) -> HttpResponse:
    """`request("GET", url, …)`."""
    return await request("GET", url, **options)


async def post(url: str, **options: Unpack[Options]) -> HttpResponse:
    """`request("POST", url, …)`; it is tried again only with `idempotent=True` or an `Idempotency-Key` header."""
    return await request("POST", url, **options)


async def put(url: str, **options: Unpack[Options]) -> HttpResponse:
    """`request("PUT", url, …)`."""
    return await request("PUT", url, **options)


async def patch(url: str, **options: Unpack[Options]) -> HttpResponse:
    """`request("PATCH", url, …)`; it is tried again only with `idempotent=True` or an `Idempotency-Key` header."""
    return await request("PATCH", url, **options)


async def delete(url: str, **options: Unpack[Options]) -> HttpResponse:
    """`request("DELETE", url, …)`."""
    return await request("DELETE", url, **options)


_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("headwater_http_loop", default=None)


def serve_blocking(loop: asyncio.AbstractEventLoop) -> None:
    """Let `http.blocking` send its requests on `loop`, in the context that this is called in."""
    _loop.set(loop)


class Blocking:
    """The same functions for plain `def` routes: they wait in the route's thread while the platform's loop works."""

    def request(self, method: str, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.request`."""
        current("http.blocking")
        loop = _loop.get()
        if loop is None or _is_in_loop():
            raise OutsideRouteError(
                "`http.blocking` is for plain `def` routes; here it would stop the whole platform.",
                hint=f"Write `await http.{method.lower()}(…)` in an `async def` route.",
            )
        sending = request(method, url, **options)
        try:
            future = asyncio.run_coroutine_threadsafe(sending, loop)
        except RuntimeError:
            sending.close()
            raise ProviderError("The platform is stopping; no request can be sent.") from None
        return future.result()

    def get(self, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.get`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.post`."""
        return self.request("POST", url, **options)

    def put(self, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.put`."""
        return self.request("PUT", url, **options)

    def patch(self, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.patch`."""
        return self.request("PATCH", url, **options)

    def delete(self, url: str, **options: Unpack[Options]) -> HttpResponse:
        """See `http.delete`."""
        return self.request("DELETE", url, **options)


def _is_in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


blocking = Blocking()
