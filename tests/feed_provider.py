"""A provider for the trials: customers in the order of their last change, which goes on while they are read.

GET /customers?after=NUMBER lists what changed after a number; GET /customers?offset=N lists by place, oldest first.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec

from headwater.testing.answering import Provider, SentEvent
from headwater.transport import Headers, TransportRequest, TransportResponse
from project_builder import CUSTOMERS, manifest, write_project

PAGE = 3
SECRETS = {"api_key": "sk-feed", "webhook_secret": "whsec_ZmVlZC1vZi10cmlhbHM="}
BEGAN = 1767225600

LIBRARY = """\
from datetime import UTC, datetime

from headwater import http, secrets

API = "https://api.shop.example"


async def changed(**params):
    headers = {"Authorization": f"Bearer {secrets['api_key']}"}
    return await http.get(f"{API}/customers", params=params, headers=headers, ok=(410,))


def customer_record(payload):
    return {"id": payload["id"], "email": payload["email"]}


def instant(seconds):
    return datetime.fromtimestamp(seconds, UTC)
"""

SYNC = """\
from headwater import Page, SyncRequest, errors, ingest, route

from ...lib.shop import changed, customer_record


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    answer = await changed(after=request.cursor or "100")
    if answer.status == 410:
        raise errors.StopError("The provider forgot the cursor.", hint="Reset the checkpoint.")
    page = answer.json()
    for customer in page["data"]:
        ingest.canonical(
            "customer",
            customer_record(customer),
            stream="customers",
            idempotency_key=f"shop:customer:{customer['id']}",
        )
    return Page(cursor=page["last"] or request.cursor, has_more=page["more"])
"""

WEBHOOK = """\
from headwater import WebhookRequest, ingest, route

from ...lib.shop import customer_record, instant


@route(auth="standard_webhooks")
async def post(request: WebhookRequest) -> None:
    event = request.json()
    ingest.canonical(
        "customer",
        customer_record(event["data"]),
        stream="customers",
        idempotency_key=f"shop:event:{event['id']}",
        as_of=instant(event["at"]),
    )
"""

FILES = {
    "connector.py": manifest(
        ('        Stream("invoices", mode="backfill"),\n', ""), ('        Stream("events", mode="webhook"),\n', ""),
    ),
    "src/api/sync/customers.py": SYNC,
    "src/api/sync/invoices.py": None,
    "src/api/webhooks/shop.py": WEBHOOK,
    "src/api/setup/test_connection.py": """\
        from headwater import Response, SetupRequest, route

        from ...lib.shop import changed


        @route(auth="api_key")
        async def post(request: SetupRequest) -> Response:
            await changed(after="100")
            return Response()
    """,
    "src/lib/shop.py": LIBRARY,
}  # fmt: skip


def feed_project(folder: Path, **files: str) -> Path:
    """The good connector of this provider; `sync` and `webhook` take the place of its routes."""
    changed = {
        CUSTOMERS: files.get("sync", SYNC),
        "src/api/webhooks/shop.py": files.get("webhook", WEBHOOK),
        "tests/provider.py": "import feed_provider\n\n\ndef provider():\n    return feed_provider.provider()\n",
    }
    return write_project(folder, {**FILES, **changed})


class Feed:
    """The account: customers by id, each with the number of its last change."""

    def __init__(self) -> None:
        self.number = 100
        self.customers: dict[str, dict[str, object]] = {}
        self.shifts = 0
        for _ in range(8):
            self.put(f"c_{len(self.customers) + 1}")

    def put(self, identity: str) -> None:
        self.number += 1
        self.customers[identity] = {
            "id": identity,
            "email": f"{identity}.{self.number}@example.com",
            "seq": self.number,
        }

    def shift(self) -> None:
        """Delete one, make one, change one."""
        self.shifts += 1
        del self.customers[min(self.customers, key=lambda one: int(one[2:]))]
        self.put(f"c_{100 + self.shifts}")
        self.put(max(self.customers, key=lambda one: int(one[2:]) % 7))

    async def __call__(self, request: TransportRequest) -> TransportResponse:
        query = {name: values[-1] for name, values in parse_qs(urlsplit(request.url).query).items()}
        everything = sorted(self.customers.values(), key=lambda one: one["seq"])
        if "offset" in query:
            everything = sorted(self.customers.values(), key=lambda one: int(str(one["id"])[2:]))
            left = everything[int(query["offset"]) :]
        else:
            left = [one for one in everything if one["seq"] > int(query["after"])]
        page = left[:PAGE]
        last = str(page[-1]["seq"]) if page else None
        body = msgspec.json.encode({"data": page, "last": last, "more": len(left) > PAGE})
        return TransportResponse(status=200, headers=Headers([("content-type", "application/json")]), body=body)


def events() -> list[SentEvent]:
    """One customer changes three times, another once."""
    told = [("c_2", "first", 10), ("c_2", "second", 20), ("c_5", "only", 25), ("c_2", "third", 30)]
    return [
        SentEvent(
            body=json.dumps(
                {"id": f"e_{number}", "at": BEGAN + at, "data": {"id": identity, "email": f"{words}@example.com"}}
            ).encode()
        )
        for number, (identity, words, at) in enumerate(told)
    ]


def provider() -> Provider:
    """A fresh account."""
    feed = Feed()
    # Its events are yet to come when it is first polled.
    return Provider(
        transport=feed, secrets=SECRETS, events=events(), shift=feed.shift, at=datetime.fromtimestamp(BEGAN - 3600, UTC)
    )
