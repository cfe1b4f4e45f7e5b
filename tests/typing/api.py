"""Only type-checked: what an author writes has the types that an author expects."""

from datetime import UTC, datetime
from typing import assert_type

from headwater import (
    Canonical,
    Connector,
    Page,
    Response,
    Stream,
    SyncRequest,
    WebhookRequest,
    checkpoint,
    http,
    ingest,
    log,
    oauth,
    route,
    secrets,
    settings,
)
from headwater.http import HttpResponse
from headwater.ingest import Batch
from headwater.jsonvalue import JSONValue
from headwater.record import Emission


class Contact(Canonical):
    """A connector's own canonical type."""

    id: str
    email: str | None = None


connector = Connector(
    key="crm", name="CRM", version="1", streams=[Stream("contacts", mode="poll", schedule="0 * * * *")]
)


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    """A sync route."""
    assert_type(request.cursor, str | None)
    response = await http.get("https://crm.test/contacts", params={"limit": request.limit})
    assert_type(response, HttpResponse)
    assert_type(response.json(), JSONValue)
    assert_type(secrets["api_key"], str)
    assert_type(settings["region"], JSONValue)
    assert_type(await oauth.access_token(), str)
    assert_type(checkpoint.cursor, str | None)
    log.info("page of %s", request.stream)
    emission = ingest.canonical(
        "contact", Contact(id="1"), stream="contacts", idempotency_key="crm:contact:1", as_of=datetime.now(UTC)
    )
    assert_type(emission, Emission)
    assert_type(ingest.batch("contact", [Contact(id="1")], stream="contacts", continue_on_error=True), Batch)
    return Page(cursor=None, has_more=False)


@route(auth="hmac_sha256")
async def receive(request: WebhookRequest) -> Response | None:
    """A webhook route."""
    assert_type(request.json(), JSONValue)
    return None
