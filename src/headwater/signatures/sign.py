"""Signed deliveries, for tests and for trying an endpoint: the headers that a provider would send."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from headwater.errors import NotFoundError, near_miss
from headwater.signatures import registry


def signed(
    scheme: str,
    body: bytes,
    secret: str,
    *,
    at: datetime,
    provider_id: str = "delivery-1",
    event_type: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """The headers of a delivery of `body`, signed by `scheme` at that instant.

    `provider_id` and `event_type` go into the headers where the provider has headers for them; elsewhere they are part
    of the body (Stripe: `id` and `type`), which is yours to write.
    """
    known = registry.scheme(scheme)
    if known is None:
        raise NotFoundError(f"There is no signature scheme `{scheme}`.", hint=near_miss(scheme, registry.names()))
    options = options or {}
    headers = known.sign(body, secret, at=at, provider_id=provider_id, options=options)
    event_header = options.get("event_header") or getattr(known, "event_header", None)
    if event_header and event_type is not None:
        headers[event_header] = event_type
    return {"Content-Type": "application/json", **headers}
