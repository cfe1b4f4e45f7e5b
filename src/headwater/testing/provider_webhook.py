"""The fake provider's webhook sender: signs, sends, tries again with backoff, and, on request, does all that Stripe
warns of: the same event twice, events out of order, late ones, and deliveries whose answer it never saw.
"""

from __future__ import annotations

import hashlib
import heapq
import hmac
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from headwater.clock import Clock
from headwater.testing.provider_ledger import ApiError, Ledger, State

if TYPE_CHECKING:
    import aiohttp

Post = Callable[[str, dict[str, str], bytes], Awaitable[int]]  # url, headers, body → status; raises where none came

RETRY_SECONDS: tuple[float, ...] = (60, 300, 1800, 7200, 18_000, 36_000, 43_200, 43_200, 86_400)  # about three days
IDLE_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class WebhookFaults:
    """Shares, from 0 to 1, of the deliveries that go wrong."""

    duplicated: float = 0.0  # sent once more, some time later
    reordered: float = 0.0  # held back behind what came after
    late: float = 0.0  # held back for up to `late_seconds`
    late_seconds: float = 600.0
    lost_response: float = 0.0  # received and answered, and the answer lost: sent again
    dropped: float = 0.0  # never sent


@dataclass(kw_only=True)
class Endpoint:
    """Where deliveries go; the newest secret first, an older one while it is rolled."""

    id: str
    url: str
    created: int
    enabled_events: Sequence[str] = ("*",)
    secrets: list[tuple[str, datetime | None]] = field(default_factory=list)

    def wants(self, event: State) -> bool:
        """Whether this endpoint is sent events of that type."""
        return "*" in self.enabled_events or event["type"] in self.enabled_events

    def shown(self, *, with_secret: bool = False) -> dict[str, object]:
        """https://docs.stripe.com/api/webhook_endpoints/object"""
        shown: dict[str, object] = {
            "id": self.id, "object": "webhook_endpoint", "created": self.created, "livemode": False,
            "enabled_events": list(self.enabled_events), "status": "enabled", "url": self.url, "metadata": {},
        }  # fmt: skip
        return {**shown, "secret": self.secrets[0][0]} if with_secret else shown


@dataclass(frozen=True, kw_only=True)
class _Sending:
    endpoint: Endpoint
    event: State
    attempt: int


class WebhookSender:
    """Sends each event to each endpoint until it is answered 2xx or three days have passed."""

    def __init__(self, ledger: Ledger, clock: Clock, *, seed: int, post: Post | None = None) -> None:
        self._ledger = ledger
        self._clock = clock
        self._random = random.Random(f"webhooks {seed}")  # noqa: S311  reproducible faults
        self._waiting: list[tuple[datetime, int, _Sending]] = []
        self._count = 0
        self._under_way = 0
        self._is_stopped = False
        self.post = post
        self.faults = WebhookFaults()
        self.endpoints: dict[str, Endpoint] = {}
        self.sent = 0
        self.abandoned: list[State] = []  # events that were given up
        ledger.listeners.append(self._enqueue)

    def register(self, url: str, *, enabled_events: Sequence[str] = ("*",), secret: str | None = None) -> Endpoint:
        """A new endpoint; its signing secret is `endpoint.secrets[0][0]`."""
        identity = self._ledger.new_id("we")
        secret = secret or self._ledger.new_id("whsec", 32)
        endpoint = Endpoint(
            id=identity, url=url, created=self._ledger.now_seconds(), enabled_events=tuple(enabled_events),
            secrets=[(secret, None)],
        )  # fmt: skip
        self.endpoints[identity] = endpoint
        return endpoint

    def remove(self, identity: str) -> Endpoint:
        """Delete an endpoint; what waits for it is not sent."""
        if identity not in self.endpoints:
            raise ApiError(404, f"No such webhook endpoint: '{identity}'", code="resource_missing", param="id")
        return self.endpoints.pop(identity)

    def roll_secret(self, identity: str, *, overlap_seconds: float = 86_400) -> str:
        """A new signing secret; until the overlap ends, deliveries carry a signature of each."""
        endpoint = self.endpoints[identity]
        until = self._clock.now() + timedelta(seconds=overlap_seconds)
        secret = self._ledger.new_id("whsec", 32)
        endpoint.secrets = [(secret, None), (endpoint.secrets[0][0], until)]
        return secret

    @property
    def waiting(self) -> int:
        """Deliveries yet to be answered: retries are among them, and those under way."""
        return len(self._waiting) + self._under_way

    @property
    def next_at(self) -> datetime | None:
        """When the next delivery is due."""
        return self._waiting[0][0] if self._waiting else None

    async def deliver(self) -> int:
        """Send all that is due now; how many were sent."""
        due: list[_Sending] = []
        while self._waiting and self._waiting[0][0] <= self._clock.now():
            due.append(heapq.heappop(self._waiting)[2])
        self._under_way += len(due)
        for sending in self._disordered(due):
            try:
                await self._send(sending)
            finally:
                self._under_way -= 1
        return len(due)

    async def serve(self) -> None:
        """Deliver what is due, again and again, until `stop`."""
        self._is_stopped = False
        while not self._is_stopped:
            if not await self.deliver():
                await self._clock.sleep(IDLE_SECONDS)

    def stop(self) -> None:
        """Let `serve` return after what it is sending."""
        self._is_stopped = True

    def _enqueue(self, event: State) -> None:
        for endpoint in self.endpoints.values():
            if endpoint.wants(event) and self._random.random() >= self.faults.dropped:
                late = self._chance(self.faults.late) * self._random.random() * self.faults.late_seconds
                self._push(_Sending(endpoint=endpoint, event=event, attempt=0), after_seconds=late)
                if self._chance(self.faults.duplicated):
                    again = self._random.random() * self.faults.late_seconds
                    self._push(_Sending(endpoint=endpoint, event=event, attempt=0), after_seconds=again)

    def _push(self, sending: _Sending, *, after_seconds: float) -> None:
        self._count += 1
        due_at = self._clock.now() + timedelta(seconds=after_seconds)
        heapq.heappush(self._waiting, (due_at, self._count, sending))

    def _disordered(self, due: list[_Sending]) -> list[_Sending]:
        held = [self._chance(self.faults.reordered) for _ in due]
        kept = [sending for sending, is_held in zip(due, held, strict=True) if not is_held]
        back = [sending for sending, is_held in zip(due, held, strict=True) if is_held]
        return kept + back[::-1]

    async def _send(self, sending: _Sending) -> None:
        if self.post is None or sending.endpoint.id not in self.endpoints:
            return
        body = msgspec.json.encode(sending.event)
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "stripe-signature": self._signature(sending.endpoint, body),
        }
        self.sent += 1
        try:
            status = await self.post(sending.endpoint.url, headers, body)
        except (OSError, TimeoutError):
            status = 0
        if 200 <= status < 300 and not self._chance(self.faults.lost_response):
            return
        if sending.attempt >= len(RETRY_SECONDS):
            self.abandoned.append(sending.event)
            return
        wait = RETRY_SECONDS[sending.attempt]
        again = _Sending(endpoint=sending.endpoint, event=sending.event, attempt=sending.attempt + 1)
        self._push(again, after_seconds=wait)

    def _signature(self, endpoint: Endpoint, body: bytes) -> str:
        now = self._clock.now()
        timestamp = str(int(now.timestamp()))
        endpoint.secrets = [(secret, until) for secret, until in endpoint.secrets if until is None or until > now]
        proofs = [sign(body, secret, timestamp) for secret, _ in endpoint.secrets]
        return ",".join([f"t={timestamp}", *(f"v1={proof}" for proof in proofs)])

    def _chance(self, share: float) -> bool:
        return share > 0 and self._random.random() < share


def sign(body: bytes, secret: str, timestamp: str) -> str:
    """The `v1` proof of a body (https://docs.stripe.com/webhooks#verify-manually)."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def post_over(session: aiohttp.ClientSession) -> Post:
    """A `Post` that sends over the network, to wherever the endpoint's URL says."""

    async def post(url: str, headers: dict[str, str], body: bytes) -> int:
        import aiohttp

        try:
            async with session.post(url, headers=headers, data=body, allow_redirects=False) as answer:
                return answer.status
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    return post
