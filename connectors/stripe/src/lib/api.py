"""Stripe's API: one request, its answer, and the provider's own clock."""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from headwater import errors, http, secrets, settings

API_VERSION = "2025-03-31.basil"
API_BASE = "https://api.stripe.com"
PAGE_RECORDS_MAX = 100

Params = list[tuple[str, str | int]]


class Listed(NamedTuple):
    """One page of a list, newest object first."""

    data: list[dict[str, Any]]
    has_more: bool
    as_of: datetime | None  # when it was true, where Stripe's clock is behind ours


async def get(path: str, params: Params, *, ok: tuple[int, ...] = ()) -> Any:
    """GET below the API's address; raises what `headwater.http` raises, unless the status is in `ok`."""
    url = f"{settings.get('api_base', API_BASE)}{path}"
    headers = {"Authorization": f"Bearer {secrets['api_key']}", "Stripe-Version": API_VERSION}
    return await http.get(url, params=params, headers=headers, ok=ok)


async def list_page(path: str, params: Params, *, started_at: datetime, may_lose_cursor: bool = False) -> Listed | None:
    """One page of a list; None, where that is allowed, when the object that it should start after is gone."""
    response = await get(path, params, ok=(400,) if may_lose_cursor else ())
    body = response.json()
    if response.status == 400:
        error = body.get("error", {})
        if error.get("param") == "starting_after":
            return None
        message = f"Stripe refused {path}: {error.get('message', 'it did not say why')}"
        raise errors.ResponseError(message, status=400)
    return Listed(body["data"], body["has_more"], _provider_instant(response, started_at))


def _provider_instant(response: Any, started_at: datetime) -> datetime | None:
    """An instant by Stripe's clock at which the page's objects were surely not yet older than it shows them, when that
    is before `started_at`.

    Events are dated by Stripe's clock. Were ours ahead of it, an event that came after this page would look older.
    """
    try:
        said_at = parsedate_to_datetime(response.headers.get("date", "")).astimezone(UTC)
    except (TypeError, ValueError):
        return None
    said_at -= timedelta(seconds=1)  # the header is dated to the second, and written after the objects were read
    return said_at if said_at < started_at else None
