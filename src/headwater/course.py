"""Where one attempt of a run goes, from its reference and its stream's catalog, and the pages on the way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime

from headwater.catalog import Stream
from headwater.clock import Clock
from headwater.context import Invocation
from headwater.errors import HandlerError, StopError, near_miss
from headwater.failpoint import failpoint
from headwater.intention import PageCommit
from headwater.invoke import LiveConnection, invocation_for, invoke
from headwater.pagination import Guard, WindowedCursor, checked_page, windowed_cursor
from headwater.project import RouteFunction
from headwater.record import Origin
from headwater.route import SyncRequest
from headwater.run import Page, RunRef, Trigger, Window
from headwater.watch import Watch

RECORDS_LIMIT_MAX = 10_000  # of one page asked for on demand

_ORIGINS: dict[Trigger, Origin] = {"tick": "poll", "backfill": "backfill", "operator": "operator"}


@dataclass(frozen=True, kw_only=True)
class Course:
    """Fixed when an attempt begins: a run ends on the version of the connector that it began with."""

    live: LiveConnection
    stream: Stream
    ref: RunRef
    cursor: str | None  # the provider's, of the first page
    window: Window | None
    windowed: WindowedCursor | None  # the checkpoint is a window's
    advance: bool  # pages move the checkpoint
    limit: int  # records wanted in a page

    def goes_on(self, fetched: Fetched) -> bool:
        """Whether another page follows."""
        return fetched.page.has_more and fetched.commit.number != self.ref.pages_limit


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A page as its route returned it, and as it is to be committed."""

    page: Page
    commit: PageCommit


def plot(
    live: LiveConnection, ref: RunRef, *, at: datetime, on_demand: bool = False, limit: int | None = None
) -> Course:
    """The course of `ref` begun at `at`; with `on_demand`, of one page for somebody who gives the cursor.

    Raises `StopError` when the connector has no sync route for it, or the checkpoint is not usable.
    """
    stream = live.project.connector.stream(ref.stream_key)
    if stream is None or ref.stream_key not in live.project.sync_routes:
        raise StopError(
            f"The connector {live.project.connector.key} {live.project.version} has no sync route of the stream"
            f" `{ref.stream_key}`.",
            hint=near_miss(ref.stream_key, live.project.sync_routes),
        )
    cursor, window, windowed = ref.cursor, ref.window, None
    # A window asked for by an operator has no checkpoint of its own, and must not move the live one.
    is_aside = on_demand or (window is not None and ref.window_id is None)
    if is_aside and not on_demand:
        cursor = None
    if window is None and stream.windowed:
        windowed = windowed_cursor(None if on_demand else cursor, at=at, lookback_seconds=stream.lookback_seconds)
        window = windowed.window
        cursor = cursor if on_demand else windowed.cursor
    return Course(
        live=live,
        stream=stream,
        ref=ref,
        cursor=cursor,
        window=window,
        windowed=None if is_aside else windowed,
        advance=not is_aside,
        limit=min(limit or stream.page_records, RECORDS_LIMIT_MAX),
    )


async def fetch(
    course: Course,
    *,
    watch: Watch,
    clock: Clock,
    lease_seconds: float,
    invoked: Callable[[Invocation], None] | None = None,
) -> AsyncGenerator[Fetched, None]:
    """The pages of a course, one invocation of its route each, until there are no more.

    `invoked` is told of each invocation before it begins. Raises what the route raises, and the guards' own errors for
    pages that would never end.
    """
    ref, cursor, number = course.ref, course.cursor, course.ref.page_number
    guard = Guard(pages_max=course.stream.pages_max, pages_before=number)
    route = course.live.project.sync_routes[ref.stream_key]
    while True:
        guard.before_page()
        started_at = clock.now()
        # It goes on from the checkpoint, so what it reads is no older, whatever a clock that was put right says.
        as_of = max(started_at, ref.checkpoint_at or started_at)
        invocation = invocation_for(
            course.live, stream=ref.stream_key, as_of=as_of, cursor=cursor, partition=ref.partition,
            checkpoint_at=ref.checkpoint_at, run_id=ref.run_id, priority=ref.priority,
        )  # fmt: skip
        if invoked:
            invoked(invocation)
        request = SyncRequest(
            stream=ref.stream_key, cursor=cursor, window=course.window, limit=course.limit, partition=ref.partition,
            started_at=started_at,
        )  # fmt: skip
        page = checked_page(await watch.page(_call(route, request, invocation)))
        guard.after_page(cursor, page, invocation.emissions)
        failpoint("page.fetched")
        number += 1
        commit = _commit(
            course, page, invocation,
            number=number, started_at=started_at, at=clock.now(), lease_seconds=lease_seconds,
        )  # fmt: skip
        fetched = Fetched(page=page, commit=commit)
        yield fetched
        if not course.goes_on(fetched):
            return
        cursor = page.cursor


def _commit(
    course: Course,
    page: Page,
    invocation: Invocation,
    *,
    number: int,
    started_at: datetime,
    at: datetime,
    lease_seconds: float,
) -> PageCommit:
    ref = course.ref
    return PageCommit(
        ref=ref,
        number=number,
        emissions=invocation.emissions,
        quarantined=invocation.quarantined,
        cursor=course.windowed.saved(page) if course.windowed else page.cursor,
        has_more=page.has_more,
        origin=_ORIGINS[ref.trigger],
        connector_version=course.live.project.version,
        started_at=started_at,
        at=at,
        lease_seconds=lease_seconds,
        delete_share_max=1.0 if ref.allow_deletes else course.stream.delete_share_max,
        advance=course.advance,
        requests=invocation.requests,
        log=invocation.log,
    )


async def _call(route: RouteFunction, request: SyncRequest, invocation: Invocation) -> object:
    try:
        returned: object = await invoke(route, request, invocation)
    except SystemExit as error:
        # It would leave the event loop and take the whole process with it.
        raise HandlerError(f"The handler called exit({error.code!r}).") from error
    return returned
