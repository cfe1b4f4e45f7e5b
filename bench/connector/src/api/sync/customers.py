"""Sync the provider's customers: a page of raw objects, each emitted as it is."""

import msgspec

from headwater import Page, SyncRequest, http, ingest, route, settings


class CustomerPage(msgspec.Struct):
    """A page as the provider sends it; the objects are validated by their canonical type."""

    data: list[msgspec.Raw]
    has_more: bool


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    """One page."""
    params = {"limit": request.limit}
    if request.cursor:
        params["starting_after"] = request.cursor
    response = await http.get(f"http://127.0.0.1:{settings['port']}/v1/customers", params=params)
    page = response.json(CustomerPage)
    batch = ingest.batch("neutral_customer", page.data, stream="customers")
    return Page(cursor=batch.emissions[-1].source_id if batch.emissions else None, has_more=page.has_more)
