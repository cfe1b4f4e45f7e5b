"""Connector projects written into a folder: a good one, and the same one with a few files replaced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

MANIFEST = """\
from headwater import Connection, Connector, Permissions, Stream, Webhooks

connector = Connector(
    key="shop",
    name="Shop",
    version="0.1.0",
    connection=Connection(
        settings={
            "type": "object",
            "properties": {
                "region": {"type": "string"},
                "accounts": {"type": "array", "items": {"type": "string"}},
                "api_key": {"type": "string", "x-secret": True},
                "webhook_secret": {"type": "string", "x-secret": True},
            },
            "required": ["api_key"],
        },
        test="setup/test_connection",
    ),
    permissions=Permissions(http=["https://api.shop.example/*"]),
    webhooks=Webhooks(endpoint="/webhooks/shop", auth="standard_webhooks"),
    streams=[
        Stream("events", mode="webhook"),
        Stream("customers", mode="poll", schedule="*/15 * * * *"),
        Stream("invoices", mode="backfill"),
    ],
)
"""

LIBRARY = """\
from headwater import http, secrets, settings

API = "https://api.shop.example"


async def list_page(path, request):
    headers = {"Authorization": f"Bearer {secrets['api_key']}", "Region": settings.get("region")}
    answer = await http.get(f"{API}{path}", params={"after": request.cursor}, headers=headers)
    return answer.json()


def customer_record(payload):
    return {"id": payload["id"], "email": payload["email"]}
"""

SYNC = """\
from headwater import Page, SyncRequest, ingest, route

from ...lib.shop import customer_record, list_page


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    page = await list_page("/customers", request)
    for customer in page["data"]:
        ingest.canonical(
            "customer",
            customer_record(customer),
            stream="{stream}",
            idempotency_key=f"shop:customer:{customer['id']}",
        )
    return Page(cursor=page["next"], has_more=page["next"] is not None)
"""

WEBHOOK = """\
from headwater import Response, WebhookRequest, ingest, route

from ...lib.shop import customer_record


@route(auth="standard_webhooks")
async def post(request: WebhookRequest) -> Response | None:
    event = request.json()
    ingest.canonical("customer", customer_record(event["data"]), stream="events", idempotency_key=event["id"])
    return None
"""

SETUP = """\
from headwater import Response, SetupRequest, http, route

from ...lib.shop import API


@route(auth="api_key")
async def post(request: SetupRequest) -> Response:
    await http.get(f"{API}/account")
    return Response()
"""

GOOD: Mapping[str, str] = {
    "connector.py": MANIFEST,
    "src/api/setup/test_connection.py": SETUP,
    "src/api/sync/customers.py": SYNC.replace("{stream}", "customers"),
    "src/api/sync/invoices.py": SYNC.replace("{stream}", "invoices"),
    "src/api/webhooks/shop.py": WEBHOOK,
    "src/lib/shop.py": LIBRARY,
}

CUSTOMERS = "src/api/sync/customers.py"
LIB = "src/lib/shop.py"


def write_project(folder: Path, files: Mapping[str, str | None] = {}) -> Path:
    """Write the good project into `folder`, with `files` added, replaced, or (None) left out."""
    for name, content in {**GOOD, **files}.items():
        if content is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content))
    return folder


def manifest(*replacements: tuple[str, str]) -> str:
    """The good manifest with some of its text replaced; each text must be there."""
    return replaced(MANIFEST, *replacements)


def replaced(text: str, *replacements: tuple[str, str]) -> str:
    """A text with some of it replaced; each part must be there."""
    for old, new in replacements:
        assert old in text, f"nothing to replace: {old}"
        text = text.replace(old, new, 1)
    return text
