"""A neutral provider of Stripe-like customers: pages rendered beforehand, so that it costs every client the same.

GET /v1/customers?limit=100[&starting_after=cus_…] answers {"object": "list", "data": […], "has_more": …}.
Usage: provider.py [--records 200000] [--port 9900]; prints "ready".
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from urllib.parse import parse_qsl

FIRST = ["Ada", "Bo", "Chen", "Dara", "Eve", "Femi", "Gus", "Hana", "Ines", "Jun", "Kofi", "Lena", "Mio", "Nia"]
LAST = ["Adams", "Baker", "Costa", "Diaz", "Evans", "Fuchs", "Garcia", "Haas", "Ito", "Jansen", "Khan", "Lopez"]
CITIES = [("San Francisco", "CA", "US", "94103"), ("Berlin", None, "DE", "10115"), ("Osaka", None, "JP", "530-0001")]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
NEWEST = 1_700_000_000


def identity(index: int) -> str:
    """The id of the nth customer: stable, and in no order, as real ones are."""
    number = int.from_bytes(hashlib.blake2b(b"customer %d" % index, digest_size=11).digest(), "big")
    letters = []
    for _ in range(14):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "cus_" + "".join(letters)


def customer(index: int) -> dict:
    """The nth customer, about 800 bytes of JSON; the first is the newest."""
    chance = random.Random(index * 1_000_003 + 7)
    first, last, city = chance.choice(FIRST), chance.choice(LAST), chance.choice(CITIES)
    address = {
        "city": city[0],
        "country": city[2],
        "line1": f"{chance.randint(1, 9999)} {chance.choice(LAST)} St",
        "line2": None if chance.random() < 0.7 else f"Apt {chance.randint(1, 400)}",
        "postal_code": city[3],
        "state": city[1],
    }
    return {
        "id": identity(index),
        "object": "customer",
        "address": address,
        "balance": chance.choice([0, 0, 0, -500, 1200]),
        "created": NEWEST - index * 37,
        "currency": chance.choice(["usd", "eur", "jpy"]),
        "default_source": None,
        "delinquent": chance.random() < 0.05,
        "description": f"{first} {last}, account {index}",
        "discount": None,
        "email": f"{first.lower()}.{last.lower()}.{index}@example.com",
        "invoice_prefix": f"{chance.getrandbits(32):08X}",
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": f"pm_{chance.getrandbits(64):016x}",
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {"order_id": str(chance.randint(1000, 999_999)), "segment": chance.choice(["smb", "mid", "ent"])},
        "name": f"{first} {last}",
        "next_invoice_sequence": chance.randint(1, 40),
        "phone": f"+1{chance.randint(2_000_000_000, 9_999_999_999)}",
        "preferred_locales": ["en"] if chance.random() < 0.5 else [],
        "shipping": None if chance.random() < 0.5 else {"address": address, "name": f"{first} {last}", "phone": None},
        "tax_exempt": "none",
        "test_clock": None,
    }


def render(records: int, limit: int) -> dict[str, bytes]:
    """Every page's whole HTTP response by its `starting_after`."""
    bodies = [json.dumps(customer(index), separators=(",", ":")).encode() for index in range(records)]
    pages = {}
    for start in range(0, records, limit):
        more = b"true" if start + limit < records else b"false"
        data = b",".join(bodies[start : start + limit])
        body = b'{"object":"list","data":[%b],"has_more":%b,"url":"/v1/customers"}' % (data, more)
        pages[identity(start - 1) if start else ""] = respond(b"200 OK", body)
    return pages


def respond(status: bytes, body: bytes) -> bytes:
    """A whole HTTP response."""
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


EMPTY = respond(b"200 OK", b'{"object":"list","data":[],"has_more":false,"url":"/v1/events"}')
MISSING = respond(b"404 Not Found", b"{}")


class Protocol(asyncio.Protocol):
    """Answers pipelined GET requests from the rendered pages."""

    def __init__(self, pages: dict[str, bytes]) -> None:
        self._pages = pages
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            path, _, query = head.split(b" ", 2)[1].decode().partition("?")
            if path == "/v1/customers":
                cursor = dict(parse_qsl(query)).get("starting_after", "")
                self._transport.write(self._pages.get(cursor, MISSING))
            else:
                self._transport.write(EMPTY)


async def serve(records: int, limit: int, port: int) -> None:
    """Serve until killed."""
    pages = render(records, limit)
    server = await asyncio.get_running_loop().create_server(lambda: Protocol(pages), "127.0.0.1", port, backlog=1024)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """See the module."""
    import uvloop

    options = argparse.ArgumentParser()
    options.add_argument("--records", type=int, default=200_000)
    options.add_argument("--limit", type=int, default=100)
    options.add_argument("--port", type=int, default=9900)
    chosen = options.parse_args()
    uvloop.run(serve(chosen.records, chosen.limit, chosen.port))


if __name__ == "__main__":
    main()
