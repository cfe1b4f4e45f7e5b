"""A load of signed deliveries: 64 connections, each request another event, rendered and signed before it begins.

Usage: load.py URL SECRET SECONDS [--connections 64] [--warm 1]; prints one JSON line: requests/s, p50, p99, statuses.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import json
import time
from collections import Counter
from urllib.parse import urlsplit

from provider import customer

POOL = 150_000


def render(url: str, secret: str, count: int, *, salt: str) -> list[bytes]:
    """Whole HTTP requests with distinct event ids and distinct customers, each signed as Stripe signs."""
    parts = urlsplit(url)
    subject = customer(1)
    stamp = str(int(time.time()))
    requests = []
    for index in range(count):
        subject["id"] = f"cus_{salt}{index:09d}"
        event = {
            "id": f"evt_{salt}{index:09d}",
            "object": "event",
            "api_version": "2024-06-20",
            "created": int(stamp),
            "type": "customer.updated",
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": "req_1", "idempotency_key": None},
            "data": {"object": subject, "previous_attributes": {"balance": 0}},
        }
        body = json.dumps(event, separators=(",", ":")).encode()
        signature = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        requests.append(
            b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\nstripe-signature: t=%b,v1=%b\r\n"
            b"content-length: %d\r\n\r\n%b"
            % (parts.path.encode(), parts.netloc.encode(), stamp.encode(), signature.encode(), len(body), body)
        )
    return requests


class Client(asyncio.Protocol):
    """One connection: sends, waits for the answer, sends the next."""

    def __init__(self, load: Load) -> None:
        self._load = load

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        request = self._load.take()
        if request is None:
            self._transport.close()
            return
        self._buffer = b""
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(body) >= length:
            self._load.note(int(head[9:12]), time.perf_counter() - self._sent)
            self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._load.gone()


class Load:
    """What is left to send, and what came back."""

    def __init__(self, requests: list[bytes], connections: int) -> None:
        self._requests = iter(requests)
        self._open = connections
        self.finished = asyncio.get_running_loop().create_future()
        self.deadline = 0.0
        self.measuring_from = 0.0
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()

    def take(self) -> bytes | None:
        return None if time.perf_counter() > self.deadline else next(self._requests, None)

    def note(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        if time.perf_counter() >= self.measuring_from:
            self.times.append(seconds)

    def gone(self) -> None:
        self._open -= 1
        if self._open == 0:
            self.finished.set_result(None)


async def run(url: str, secret: str, seconds: float, connections: int, warm: float, salt: str) -> dict:
    """Load the server for so long, and tell what came back."""
    parts = urlsplit(url)
    load = Load(render(url, secret, POOL, salt=salt), connections)
    started = time.perf_counter()
    load.measuring_from, load.deadline = started + warm, started + warm + seconds
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(load), parts.hostname, parts.port)
    await load.finished
    measured = min(time.perf_counter(), load.deadline) - load.measuring_from
    times = sorted(load.times)
    return {
        "rate": len(times) / measured,
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "answered": sum(load.statuses.values()),
        "statuses": dict(load.statuses),
        "seconds": measured,
    }


def main() -> None:
    """See the module."""
    import uvloop

    options = argparse.ArgumentParser()
    options.add_argument("url")
    options.add_argument("secret")
    options.add_argument("seconds", type=float)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--warm", type=float, default=1)
    options.add_argument("--salt", default="a")
    chosen = options.parse_args()
    print(
        json.dumps(
            uvloop.run(run(chosen.url, chosen.secret, chosen.seconds, chosen.connections, chosen.warm, chosen.salt))
        )
    )


if __name__ == "__main__":
    main()
