"""Webhooks in: a bare ASGI callable for `POST {endpoint}/{endpoint_id}`.

read (limits) ──> verify ──> answer a handshake
                    ├──────> refuse: 401, counted, nothing stored (Invariant 11)
                    └──────> append ── committed ──> 2xx (Invariant 1)
                                    └─ not committed ──> 503: the provider sends it again

The path of one request makes no task of its own: what many requests append is gathered into one commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from headwater.clock import Clock
from headwater.deadline import Deadlines
from headwater.delivery import Appended, NewDelivery
from headwater.endpoint import Endpoint, Endpoints, Headers, Receivers
from headwater.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeliveryError,
    EncodingError,
    HeadersTooLargeError,
    OverloadedError,
    SignatureError,
    unforeseen,
)
from headwater.failpoint import failpoint
from headwater.gather import Gather
from headwater.signature import SchemeLookup, SignedRequest, Verified
from headwater.signatures import registry
from headwater.store import DeliveryStore

APPEND_MAX = 1000  # deliveries in one commit
LINGER_BYTES_MAX = 8 * 1024 * 1024  # of a body that was refused: read and forgotten
LINGER_SECONDS_MAX = 5.0
BODY_SECONDS_MAX = 20.0  # for a body to arrive whole
CONNECTION_SHARE = 0.5  # of the requests in flight: one connection leaves room for the others
HEADERS_MAX = 100
HEADER_BYTES_MAX = 32 * 1024  # of all headers together
IN_FLIGHT_MAX = 2048  # requests
IN_FLIGHT_BYTES_MAX = 256 * 1024 * 1024  # of bodies
PENDING_MAX = 100_000  # deliveries that wait for dispatch
PENDING_SECONDS = 1.0  # between two counts of them
RETRY_AFTER_SECONDS = 5

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

logger = logging.getLogger("headwater.ingress")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much ingress takes upon itself at once; body sizes are the manifest's."""

    in_flight_max: int = IN_FLIGHT_MAX
    in_flight_bytes_max: int = IN_FLIGHT_BYTES_MAX
    pending_max: int = PENDING_MAX
    body_seconds_max: float = BODY_SECONDS_MAX


@dataclass(frozen=True)
class Answer:
    """What the provider is told."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @cached_property
    def wire(self) -> tuple[tuple[bytes, bytes], ...]:
        """All headers, as ASGI has them."""
        content_type = (b"content-type", self.content_type.encode("latin-1"))
        return (content_type, (b"content-length", str(len(self.body)).encode()), *self.headers)


_CLOSE = (b"connection", b"close")  # whatever is left of the request is not read
_RETRY = (b"retry-after", str(RETRY_AFTER_SECONDS).encode())

ACCEPTED = Answer(200, b"ok")
NOT_FOUND = Answer(404, b"not found", headers=(_CLOSE,))
NOT_POST = Answer(405, b"POST only", headers=((b"allow", b"POST"), _CLOSE))
OVERLOADED = Answer(503, b"overloaded, send again", headers=(_RETRY, _CLOSE))
UNAVAILABLE = Answer(503, b"not stored, send again", headers=(_RETRY,))
REFUSED = {
    400: Answer(400, b"bad request", headers=(_CLOSE,)),
    401: Answer(401, b"signature refused"),
    408: Answer(408, b"body too slow", headers=(_CLOSE,)),
    413: Answer(413, b"body too large", headers=(_CLOSE,)),
    415: Answer(415, b"compressed body refused", headers=(_CLOSE,)),
    431: Answer(431, b"headers too large", headers=(_CLOSE,)),
    503: OVERLOADED,
}


class Ingress:
    """Receives deliveries for all connections. `on_appended` is called after each commit that stored any."""

    def __init__(
        self,
        store: DeliveryStore,
        connections: Receivers,
        clock: Clock,
        *,
        public_url: str = "",
        on_appended: Callable[[], None] = lambda: None,
        scheme: SchemeLookup = registry.scheme,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._endpoints = Endpoints(connections, clock, public_url=public_url, scheme=scheme)
        self._on_appended = on_appended
        self._limits = limits or Limits()
        self._connection_max = max(1, int(self._limits.in_flight_max * CONNECTION_SHARE))
        self._deadlines = Deadlines(clock)
        self._appends: Gather[NewDelivery, Appended] = Gather(self._append, items_max=APPEND_MAX)
        self._in_flight = 0
        self._in_flight_of: defaultdict[int, int] = defaultdict(int)  # by connection
        self._in_flight_bytes = 0
        self._pending = 0
        self._count_at = clock.monotonic()
        self._counting: asyncio.Task[None] | None = None
        self._is_draining = False
        self.answered: Counter[int] = Counter()  # by status, since the start: for the metrics

    def forget(self) -> None:
        """Look every endpoint up anew: a connection was changed."""
        self._endpoints.forget()

    async def drain(self) -> None:
        """Refuse what comes from now on, and return once everything accepted is committed."""
        self._is_draining = True
        await self._appends.drain()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI 3."""
        if scope["type"] != "http":
            assert scope["type"] == "websocket", "only requests are routed here"
            await send({"type": "websocket.close", "code": 1003})
            return
        found = self._let_in(scope) or await self._look_up(scope)
        answer = found if isinstance(found, Answer) else await self._receive(found, scope, receive)
        if answer is None:
            return  # the sender went away before its body was here
        self.answered[answer.status] += 1
        await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.wire)})
        if answer.status == BodyTooLargeError.status:
            await send({"type": "http.response.body", "body": answer.body, "more_body": True})
            await self._linger(receive)
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.body", "body": answer.body})
        if answer is ACCEPTED:
            failpoint("delivery.acked")

    def _let_in(self, scope: Scope) -> Endpoint | Answer | None:
        """The endpoint that a request is for, or why it goes no further; None: it was not looked up lately."""
        if scope["method"] != "POST":
            return NOT_POST
        now = self._clock.monotonic()
        if self._is_overloaded(now):
            return OVERLOADED
        return self._endpoints.known(scope["path"], now)

    async def _look_up(self, scope: Scope) -> Endpoint | Answer:
        try:
            found = await self._endpoints.look_up(scope["path"], root_path=scope.get("root_path", ""))
        except Exception as error:
            logger.error(
                "An endpoint could not be looked up; its provider is asked to send again: %s",
                error,
                exc_info=unforeseen(error),
            )
            return UNAVAILABLE
        return found or NOT_FOUND

    async def _receive(self, endpoint: Endpoint, scope: Scope, receive: Receive) -> Answer | None:
        connection_id = endpoint.connection.id
        if self._in_flight_of[connection_id] >= self._connection_max:
            return OVERLOADED
        self._in_flight += 1
        self._in_flight_of[connection_id] += 1
        body: bytes | None = b""
        try:
            _check_head(scope["headers"], endpoint.body_bytes_max)
            body = await self._read(receive, endpoint.body_bytes_max)
            if body is None:
                return None
            received_at = self._clock.now()
            verified = self._verify(endpoint, scope, body, received_at)
            failpoint("delivery.received")
            if verified.reply is not None:
                status, content_type, reply = verified.reply
                return Answer(status, reply, content_type)
            self._in_flight_bytes += len(body)
            try:
                await self._appends.add(endpoint.delivery(verified, scope["headers"], body, received_at))
            finally:
                self._in_flight_bytes -= len(body)
        except DeliveryError as error:
            return await self._refuse(endpoint, scope["headers"], body or b"", error)
        except Exception as error:
            logger.error(
                "A delivery of %s was not stored; its provider is asked to send again: %s",
                endpoint.connection.key,
                error,
                exc_info=unforeseen(error),
            )
            return UNAVAILABLE
        finally:
            self._in_flight -= 1
            self._in_flight_of[connection_id] -= 1
        return ACCEPTED

    async def _read(self, receive: Receive, body_bytes_max: int) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        try:
            with self._deadlines.limit(self._limits.body_seconds_max):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > body_bytes_max:
                        raise BodyTooLargeError
                    if not message.get("more_body"):
                        break
                    chunks.append(chunk)
                    self._in_flight_bytes += len(chunk)
                    if self._in_flight_bytes > self._limits.in_flight_bytes_max:
                        raise OverloadedError
        except TimeoutError as error:
            raise BodyTimeoutError from error
        finally:
            self._in_flight_bytes -= sum(map(len, chunks))
        return b"".join((*chunks, chunk)) if chunks else bytes(chunk)

    async def _linger(self, receive: Receive) -> None:
        """Let some of a body pass by that was refused, once its sender is told: one that still sends when the
        connection ends reads a reset instead of the answer, and a proxy tells its own 502.
        """
        size = 0
        with suppress(TimeoutError), self._deadlines.limit(LINGER_SECONDS_MAX):
            while size < LINGER_BYTES_MAX:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break

    def _verify(self, endpoint: Endpoint, scope: Scope, body: bytes, received_at: datetime) -> Verified:
        query = scope.get("query_string")
        request = SignedRequest(
            method="POST",
            url=f"{endpoint.url}?{query.decode('latin-1')}" if query else endpoint.url,
            headers=scope["headers"],
            body=body,
            received_at=received_at,
        )
        try:
            return endpoint.scheme.verify(request, endpoint.secrets, endpoint.options)
        except SignatureError:
            raise
        except Exception as error:
            # A scheme that stumbles over a request has not proved it: fail closed.
            logger.exception("The signature scheme %s failed.", endpoint.scheme.name)
            raise SignatureError(f"The scheme {endpoint.scheme.name} failed: {type(error).__name__}.") from error

    async def _append(self, deliveries: Sequence[NewDelivery]) -> Sequence[Appended]:
        appended = await self._store.append_deliveries(deliveries)
        added = sum(not one.duplicate for one in appended)
        if added:
            self._pending += added
            self._on_appended()
        return appended

    async def _refuse(self, endpoint: Endpoint, headers: Headers, body: bytes, error: DeliveryError) -> Answer:
        answer = REFUSED[error.status]
        if answer is not OVERLOADED:
            sample = endpoint.sample(headers, body)
            try:
                await self._store.reject_delivery(
                    endpoint.connection.id, reason=error.message, at=self._clock.now(), sample=sample
                )
            except Exception as problem:
                logger.error(
                    "A refused request to %s was not counted: %s",
                    endpoint.connection.key,
                    problem,
                    exc_info=unforeseen(problem),
                )
        return answer

    def _is_overloaded(self, now: float) -> bool:
        if now >= self._count_at:
            self._count_at = now + PENDING_SECONDS
            self._counting = asyncio.get_running_loop().create_task(self._count_pending())
        return (
            self._is_draining
            or self._in_flight >= self._limits.in_flight_max
            or self._in_flight_bytes >= self._limits.in_flight_bytes_max
            or self._pending >= self._limits.pending_max
        )

    async def _count_pending(self) -> None:
        try:
            self._pending = await self._store.pending_deliveries()
        except Exception as error:
            logger.error("The waiting deliveries could not be counted: %s", error, exc_info=unforeseen(error))


def _check_head(headers: Headers, body_bytes_max: int) -> None:
    if len(headers) > HEADERS_MAX:
        raise HeadersTooLargeError
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"content-length":
            if not value.isdigit():
                raise DeliveryError("The header Content-Length is no number.")
            if len(value) > 15 or int(value) > body_bytes_max:
                raise BodyTooLargeError
        elif name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise EncodingError
    if size > HEADER_BYTES_MAX:
        raise HeadersTooLargeError
