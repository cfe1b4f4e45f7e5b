"""Something that happened at a provider and belongs to no other canonical type."""

from __future__ import annotations

from typing import Any

from headwater.canonical.schema import Canonical, Instant


class Event(Canonical):
    """One happening, with what the provider said of it."""

    id: str
    kind: str | None = None  # the provider's event type
    object_type: str | None = None  # what it happened to …
    object_id: str | None = None  # … where that has an id
    account: str | None = None
    api_version: str | None = None
    request: str | None = None  # the request at the provider that caused it
    data: dict[str, Any] | None = None  # as the provider wrote it
    test: bool | None = None
    created_at: Instant | None = None


SHIPPED = (Event,)
