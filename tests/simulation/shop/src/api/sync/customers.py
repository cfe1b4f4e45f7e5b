from headwater import Page, SyncRequest, http, route, secrets

from ...lib.shop import emit


@route(auth="api_key")
async def post(request: SyncRequest) -> Page:
    headers = {"Authorization": f"Bearer {secrets['api_key']}"}
    answer = await http.get("https://shop.test/customers", params={"after": request.cursor or "0"}, headers=headers)
    page = answer.json()
    for customer in page["data"]:
        emit(customer, f"shop:customer:{customer['id']}")
    return Page(cursor=str(page["last"]), has_more=page["more"])
