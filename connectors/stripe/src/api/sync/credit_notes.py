from headwater import Page, SyncRequest, ingest, route

from ...lib.poll import next_page


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    page = await next_page("credit_notes", request)
    for emission in page.emissions:
        ingest.canonical(
            "credit_note",
            emission.payload,
            stream="credit_notes",
            idempotency_key=emission.idempotency_key,
            source_id=emission.source_id,
            as_of=emission.as_of,
            deleted=emission.deleted,
        )
    return Page(cursor=page.cursor, has_more=page.has_more)
