from headwater import Response, SetupRequest, route

from ...lib.api import get


@route(auth="api_key")
async def post(_request: SetupRequest) -> Response:
    """Read one customer: a key that may not do so is refused by Stripe, which names the permission that is missing."""
    await get("/v1/customers", [("limit", 1)])
    return Response(body={"ok": True})
