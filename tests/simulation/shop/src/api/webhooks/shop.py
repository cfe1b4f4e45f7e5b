from headwater import WebhookRequest, route

from ...lib.shop import emit


@route(auth="stripe_signature")
async def post(request: WebhookRequest) -> None:
    event = request.json()
    emit(event["data"], f"shop:event:{event['id']}")
