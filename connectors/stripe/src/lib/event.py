"""An event → its emissions. One function for a webhook delivery and for an event read from the list, so that one that
comes by both ways has the same keys and the same bytes, and is a duplicate the second time.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from headwater import errors

from . import transform
from .stream import BY_OBJECT, DELETIONS, Resource

LAST_MICROSECOND = timedelta(microseconds=999_999)
EMBEDDED = {"charge": ("refunds",)}  # whole objects inside another one, in versions before 2022-11-15


class Emission(NamedTuple):
    """What `ingest.canonical` is given."""

    canonical_type: str
    payload: dict[str, Any]
    stream: str
    source_id: str
    idempotency_key: str
    as_of: datetime | None
    deleted: bool = False


def checked_event(value: Any) -> dict[str, Any]:
    """`value` if it is an event; `InvalidPayloadError` for any other JSON, however well it was signed."""
    is_event = isinstance(value, dict) and isinstance(value.get("id"), str) and value["id"] != ""
    if not is_event or not isinstance(value.get("created"), (int, str)) or isinstance(value["created"], bool):
        raise errors.InvalidPayloadError("The body is no Stripe event: it has no `id` or no `created`.")
    return value


def emissions_for(event: dict[str, Any]) -> list[Emission]:
    """What an event says of the objects in it; one that says nothing of a stream's object becomes an `event` record."""
    as_of = event_as_of(event)
    data = event.get("data")
    item = data.get("object") if isinstance(data, dict) else None
    found = list(_objects(item)) if isinstance(item, dict) else []
    if not found or found[0][1] is not item:
        key = event_idempotency_key(event, "event", event["id"])
        return [Emission("event", transform.event(event), "events", event["id"], key, as_of)]
    return [
        Emission(
            resource.canonical_type,
            {} if (deleted := is_deletion(event, part, item)) else resource.transform(part),
            resource.stream,
            part["id"],
            event_idempotency_key(event, resource.canonical_type, part["id"]),
            as_of,
            deleted,
        )
        for resource, part in found
    ]


def event_idempotency_key(event: dict[str, Any], canonical_type: str, source_id: str) -> str:
    """One event takes effect once on one object, by whichever way it comes."""
    return f"stripe:{event['id']}:{canonical_type}:{source_id}"


def event_as_of(event: dict[str, Any]) -> datetime:
    """When the event's objects were as it shows them.

    Stripe dates events to the second: the truth lies within [created, created + 1 s). The end of the span is taken,
    so that an event never loses to a list that was fetched in the same second, just before it happened. Of two events
    of one second, which then have the same instant, the later to be committed wins: see `settled`.
    """
    created = event["created"]
    if isinstance(created, str):  # a thin event is dated to the millisecond
        return datetime.fromisoformat(created).astimezone(UTC)
    return transform.instant(created) + LAST_MICROSECOND


def settled(emissions: list[Emission], resource: Resource) -> list[Emission]:
    """The last of each object's `emissions`, which are oldest first, once more under the key that names the object.

    The list's order is the truth. Webhooks may have come in another, and what they brought is only a duplicate when it
    is read from the list; this puts right what they left behind, and writes nothing where nothing is wrong.
    """
    last = {emission.source_id: emission for emission in emissions}
    return [emission._replace(idempotency_key=resource.record_key(key)) for key, emission in last.items()]


def is_deletion(event: dict[str, Any], part: dict[str, Any], item: dict[str, Any]) -> bool:
    """Whether `part` of the event's `item` is gone."""
    return part.get("deleted") is True or (part is item and event.get("type") in DELETIONS)


def _objects(item: dict[str, Any]) -> Iterator[tuple[Resource, dict[str, Any]]]:
    resource = BY_OBJECT.get(item.get("object", ""))
    # An `invoice.upcoming` shows an invoice that does not exist yet: it has no id.
    if resource is not None and isinstance(item.get("id"), str):
        yield resource, item
    for name in EMBEDDED.get(item.get("object", ""), ()):
        for part in (item.get(name) or {}).get("data", ()):
            yield from _objects(part)
