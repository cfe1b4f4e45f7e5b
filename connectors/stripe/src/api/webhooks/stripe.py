from headwater import WebhookRequest, ingest, route

from ...lib.event import checked_event, emissions_for


@route(auth="stripe_signature")
async def post(request: WebhookRequest) -> None:
    event = checked_event(request.json())
    for emission in emissions_for(event):
        ingest.canonical(
            emission.canonical_type,
            emission.payload,
            stream=emission.stream,
            idempotency_key=emission.idempotency_key,
            source_id=emission.source_id,
            as_of=emission.as_of,
            deleted=emission.deleted,
        )
