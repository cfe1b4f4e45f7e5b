"""The next page of a stream. Stripe's lists filter by `created` alone, so changes are read from the events list:

no checkpoint ──> list everything ──> next run: deletions of the last 28 days, then events of the last four
{"since": …} ───> events since then ──> {"since": …}                        (older than 29 days: list everything again)
a window ───────> list what was created in it

Balance transactions have no events: what was created since is listed, and once a day all that was still pending.
Each cursor is a small JSON object; while a run is under way it also says where in the list the run is.
"""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

from headwater import SyncRequest, errors

from .api import PAGE_RECORDS_MAX, Listed, Params, list_page
from .event import Emission, emissions_for, settled
from .stream import BY_STREAM, Resource

OVERLAP_SECONDS = 60  # for events that show up in the list a little late, and for clocks that differ
EVENTS_REACH_SECONDS = 29 * 86_400  # Stripe keeps events for 30 days
SWEEP_SECONDS = 86_400
# A first listing puts right what webhooks brought before it, but for two things: an object whose deletion they missed
# is in no list, and an event that Stripe still tries to deliver, for three days, may undo a newer one of its second.
DELETIONS_SECONDS = 28 * 86_400
LATE_SECONDS = 4 * 86_400

Cursor = dict[str, Any]


class Polled(NamedTuple):
    """One page: its emissions, and what the route returns of it."""

    emissions: list[Emission]
    cursor: str
    has_more: bool


async def next_page(stream: str, request: SyncRequest) -> Polled:
    """Fetch the page that `request` asks for."""
    resource = BY_STREAM[stream]
    cursor = _read(request.cursor)
    if request.window is not None:
        return await _window(resource, request, cursor)
    if "listing" in cursor or not cursor or (resource.event_types and _is_behind(cursor, request)):
        return await _everything(resource, request, cursor if "listing" in cursor else {})
    if resource.event_types:
        return await _events(resource, request, cursor)
    return await _by_created(resource, request, cursor)


async def _window(resource: Resource, request: SyncRequest, cursor: Cursor) -> Polled:
    assert request.window is not None, "the caller saw the window"
    span: Params = [
        ("created[gte]", _seconds_up(request.window.start)),
        ("created[lt]", _seconds_up(request.window.end)),
    ]
    page = await _listed(resource, request, cursor, span)
    return Polled(_records(resource, page), _write(_place(page, cursor)), page.has_more)


async def _everything(resource: Resource, request: SyncRequest, cursor: Cursor) -> Polled:
    page = await _listed(resource, request, cursor.get("listing", {}), [])
    since = cursor.get("since", _since(page, request))
    pending = _oldest_pending(page, cursor.get("pending"))
    kept: Cursor = {"since": since}
    if not resource.event_types:
        kept |= {"swept": cursor.get("swept", since)} | ({} if pending is None else {"pending": pending})
    if page.has_more:
        kept["listing"] = _place(page, cursor.get("listing", {}))
    elif resource.deletions:
        kept = {"since": since - DELETIONS_SECONDS, "next": since - LATE_SECONDS, "deletions": True}
    elif resource.event_types:
        kept = {"since": since - LATE_SECONDS}
    return Polled(_records(resource, page), _write(kept), page.has_more)


def _is_behind(cursor: Cursor, request: SyncRequest) -> bool:
    """Whether the events list no longer reaches back to where this cursor needs it."""
    is_unbegun = "deletions" in cursor and not ("down" in cursor or "up" in cursor)
    needed = cursor["next"] if is_unbegun else cursor["since"]
    return bool(needed < request.started_at.timestamp() - EVENTS_REACH_SECONDS)


async def _events(resource: Resource, request: SyncRequest, cursor: Cursor) -> Polled:
    """Events are taken oldest first, so that history grows in its order and of one second the newest wins. The list is
    newest first: where it has several pages, they are first walked down, then up again with `ending_before`.
    """
    types = resource.deletions if "deletions" in cursor else resource.event_types
    params: Params = [("limit", PAGE_RECORDS_MAX), ("created[gte]", cursor["since"])]
    params += [("types[]", event_type) for event_type in types]
    if "up" in cursor:
        params.append(("ending_before", cursor["up"]))
    elif "down" in cursor:
        params.append(("starting_after", cursor["down"]))
    page = await list_page("/v1/events", params, started_at=request.started_at)
    assert page is not None, "an event that is gone ends the run with Stripe's own words"
    following = cursor.get("next", _since(page, request))
    kept = {key: cursor[key] for key in ("since", "deletions") if key in cursor} | {"next": following}
    if page.has_more and "up" not in cursor:
        return Polled([], _write(kept | {"down": page.data[-1]["id"]}), True)
    emissions = [
        emission
        for event in reversed(page.data)
        for emission in emissions_for(event)
        if emission.stream == resource.stream
    ]
    emissions += settled(emissions, resource)
    if page.data and (page.has_more if "up" in cursor else "down" in cursor):
        return Polled(emissions, _write(kept | {"up": page.data[0]["id"]}), True)
    return Polled(emissions, _write({"since": following}), "deletions" in cursor)


async def _by_created(resource: Resource, request: SyncRequest, cursor: Cursor) -> Polled:
    now = int(request.started_at.timestamp())
    is_sweep = cursor.get("sweep", now - cursor["swept"] >= SWEEP_SECONDS)
    begin = min(cursor["since"], cursor.get("pending", cursor["since"])) if is_sweep else cursor["since"]
    page = await _listed(resource, request, cursor.get("place", {}), [("created[gte]", begin)])
    following = cursor.get("next", _since(page, request))
    # A sweep looks at all that was pending: what it finds pending replaces what was known.
    known = cursor.get("found") if is_sweep else cursor.get("pending")
    pending = _oldest_pending(page, known)
    found: Cursor = {} if pending is None else {"found" if is_sweep and page.has_more else "pending": pending}
    if not page.has_more:
        swept = now if is_sweep else cursor["swept"]
        return Polled(_records(resource, page), _write({"since": following, "swept": swept} | found), False)
    kept = {key: cursor[key] for key in ("since", "swept", "pending") if key in cursor} | found
    kept |= {"next": following, "sweep": is_sweep, "place": _place(page, cursor.get("place", {}))}
    return Polled(_records(resource, page), _write(kept), True)


async def _listed(resource: Resource, request: SyncRequest, place: Cursor, span: Params) -> Listed:
    """The page after `place`. When the object there was deleted meanwhile, the list goes on from its second, which it
    then shows once more.
    """
    limit = min(request.limit, PAGE_RECORDS_MAX)
    params: Params = [("limit", limit), *resource.params]
    page = None
    if "after" in place:
        at = [*params, *span, ("starting_after", place["after"])]
        page = await list_page(resource.path, at, started_at=request.started_at, may_lose_cursor=True)
        if page is None:
            bounds = [bound for bound in span if bound[0] != "created[lt]"] + [("created[lte]", place["created"])]
            page = await list_page(resource.path, params + bounds, started_at=request.started_at)
    else:
        page = await list_page(resource.path, params + span, started_at=request.started_at)
    assert page is not None, "only a page after a lost object is None"
    return page


def _records(resource: Resource, page: Listed) -> list[Emission]:
    return [
        Emission(
            resource.canonical_type,
            {} if item.get("deleted") is True else resource.transform(item),
            resource.stream,
            item["id"],
            resource.record_key(item["id"]),
            page.as_of,
            item.get("deleted") is True,
        )
        for item in page.data
    ]


def _place(page: Listed, before: Cursor) -> Cursor:
    if not page.data:
        return before
    last = page.data[-1]
    return {"after": last["id"], "created": last.get("created", last.get("date", 0))}


def _since(page: Listed, request: SyncRequest) -> int:
    return int((page.as_of or request.started_at).timestamp()) - OVERLAP_SECONDS


def _oldest_pending(page: Listed, known: int | None) -> int | None:
    pending = [item["created"] for item in page.data if item.get("status") == "pending"]
    return min([*pending, known] if known is not None else pending, default=None)


def _seconds_up(instant: datetime) -> int:
    """The first whole second at or after `instant`: windows that meet leave no object out and share none."""
    return -int(-instant.astimezone(UTC).timestamp() // 1)


def _read(text: str | None) -> Cursor:
    if text is None:
        return {}
    try:
        cursor = json.loads(text)
    except ValueError:
        cursor = None
    if not isinstance(cursor, dict):
        raise errors.StopError(
            f"The cursor `{text[:80]}` is none of this connector's.", hint="Reset the checkpoint of the stream."
        )
    return cursor


def _write(cursor: Cursor) -> str:
    return json.dumps(cursor, separators=(",", ":"))
