"""A fake Stripe: an ASGI app that behaves as Stripe's documentation says, fails on request, and knows what is true.

Its ledger is the ground truth that stored records are compared with. Everything is deterministic by its seed and the
clock that it is given. In process, call the app; over loopback, serve it with uvicorn.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec

from headwater.clock import Clock
from headwater.testing.provider_account import Account
from headwater.testing.provider_activity import Activity, seed_past
from headwater.testing.provider_api import Answer, Api, Asked
from headwater.testing.provider_ledger import ApiError, Ledger
from headwater.testing.provider_webhook import Endpoint, Post, WebhookFaults, WebhookSender, post_over

__all__ = [
    "API_KEY",
    "Activity",
    "ApiError",
    "Endpoint",
    "FakeStripe",
    "Faults",
    "WebhookFaults",
    "post_over",
    "seed_account",
]

API_KEY = "sk_test_headwater"
BODY_BYTES_MAX = 1024 * 1024

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Shares, from 0 to 1, of the API's answers that go wrong, and how."""

    rate_limited: float = 0.0  # 429 with Retry-After
    retry_after_seconds: int = 1
    failed: float = 0.0  # 500, 502 or 503
    reset: float = 0.0  # the connection breaks in the middle of the answer
    latency_seconds: float = 0.0  # each answer waits up to so long, on the clock
    churn: float = 0.0  # lists after whose page the account changes: one object more, and the page's last one deleted


class FakeStripe:
    """The app. `account` acts, `ledger` knows, `webhooks` sends; `faults` may be replaced at any time."""

    def __init__(
        self,
        seed: int,
        clock: Clock,
        *,
        faults: Faults | None = None,
        api_key: str = API_KEY,
        post: Post | None = None,
    ) -> None:
        self.seed = seed
        self.clock = clock
        self.faults = faults or Faults()
        self.api_key = api_key
        self.ledger = Ledger(seed=seed, clock=clock)
        self.account = Account(self.ledger, clock)
        self.webhooks = WebhookSender(self.ledger, clock, seed=seed, post=post)
        self.activity = Activity(self.account, seed=seed)
        self.requests = 0
        self._api = Api(self.account, self.webhooks)
        self._random = random.Random(f"faults {seed}")  # noqa: S311  reproducible faults
        self._replies: dict[str, tuple[bytes, Answer]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        asked = Asked(
            method=scope["method"],
            path=scope["path"],
            query=scope.get("query_string", b"").decode("latin-1"),
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            body=await _read(receive),
        )
        if self.faults.latency_seconds:
            await self.clock.sleep(self._random.random() * self.faults.latency_seconds)
        answer = self.answer(asked)
        breaks = self._chance(self.faults.reset)
        await _send(send, answer, request_id=f"req_{self.seed}_{self.requests}", breaks=breaks)

    def answer(self, asked: Asked) -> Answer:
        """The answer to one request, faults included."""
        self.requests += 1
        try:
            self._authenticate(asked.headers)
            if fault := self._fault():
                return fault
            answer = self._once(asked)
        except ApiError as error:
            return Answer(status=error.status, body=error.body)
        if asked.method == "GET" and answer.body.get("object") == "list" and self._chance(self.faults.churn):
            self._churn(answer.body)
        return answer

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        if headers.get("authorization") != f"Bearer {self.api_key}":
            raise ApiError(401, "Invalid API Key provided.", code="api_key_invalid")

    def _fault(self) -> Answer | None:
        if self._chance(self.faults.rate_limited):
            body = ApiError(429, "Too many requests.", kind="rate_limit_error", code="rate_limit").body
            return Answer(status=429, body=body, headers={"retry-after": str(self.faults.retry_after_seconds)})
        if self._chance(self.faults.failed):
            status = self._random.choice((500, 502, 503))
            return Answer(status=status, body=ApiError(status, "Something went wrong.", kind="api_error").body)
        return None

    def _once(self, asked: Asked) -> Answer:
        """Invariant of https://docs.stripe.com/api/idempotent_requests: one key, one effect, one answer."""
        key = asked.headers.get("idempotency-key", "")
        if asked.method != "POST" or not key:
            return self._api.answer(asked)
        print_of_request = asked.path.encode() + b"?" + asked.body
        if key in self._replies:
            known, answer = self._replies[key]
            if known != print_of_request:
                raise ApiError(400, "The key was used with other parameters before.", kind="idempotency_error")
            return Answer(status=answer.status, body=answer.body, headers={"idempotent-replayed": "true"})
        answer = self._api.answer(asked)
        self._replies[key] = (print_of_request, answer)
        return answer

    def _churn(self, page: Mapping[str, Any]) -> None:
        kind = page["url"].removeprefix("/v1/")
        self.activity.join()
        if page["data"] and kind == "customers":
            self.account.delete("customers", page["data"][-1]["id"])
        else:
            self.activity.step()

    def _chance(self, share: float) -> bool:
        return share > 0 and self._random.random() < share


def seed_account(provider: FakeStripe, *, customers: int) -> None:
    """Fill an empty account with a past: `customers`, what they bought, and the money that moved."""
    seed_past(provider.account, seed=provider.seed, customers=customers)


async def _read(receive: Receive) -> bytes:
    body = b""
    while len(body) <= BODY_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _send(send: Send, answer: Answer, *, request_id: str, breaks: bool) -> None:
    body = msgspec.json.encode(answer.body)
    headers = {
        "content-type": "application/json", "content-length": str(len(body)), "request-id": request_id,
        **answer.headers,
    }  # fmt: skip
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    if breaks:
        await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        raise ConnectionResetError("the fake provider breaks the connection")
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
