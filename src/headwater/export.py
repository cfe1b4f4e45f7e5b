"""Everything that was ingested, out into a sink, from where an earlier attempt was cut off.

records   the current form of each object, in the order of (connection, type, id)
changes   the feed up to where it stands, deletions as tombstones
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from headwater.errors import UsageError
from headwater.intention import LIST_LIMIT_MAX
from headwater.record import record_cursor
from headwater.sink import WRITE_CHANGES_MAX, Change, Sink, change, changes
from headwater.store import Store

What = Literal["records", "changes"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far an export has come: written by the sink together with the rows."""

    what: What
    rows: int  # written so far
    feed: int  # where the feed stood at the beginning (records), or how far it was read (changes)
    after: str | None = None  # cursor of the last record written


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export."""

    rows: int  # in the file, those of earlier attempts included
    written: int  # by this call
    position: int  # reading the feed after this misses nothing that the file does not hold
    resumed: bool


Report = Callable[[int], None]  # told the rows written so far, after each write


async def export_records(
    store: Store,
    sink: Sink,
    *,
    connection: str | None = None,
    type: str | None = None,
    with_deleted: bool = False,
    report: Report | None = None,
) -> Exported:
    """Write every current record; killed at any instant and called again, it goes on without loss or repetition.

    A record that changes meanwhile is written as it is when its turn comes: each row is a state that was current after
    the export began, and the feed after `position` brings what came later.
    """
    try:
        begun = await _resume(sink, "records")
        first = begun or Progress(what="records", rows=0, feed=(await store.changes(after=0, limit=1)).high_water)
        steps = _record_steps(store, first, connection=connection, type=type, deleted=None if with_deleted else False)
        return await _drive(sink, first, steps, resumed=begun is not None, report=report)
    finally:
        await sink.close()


async def export_changes(
    store: Store,
    sink: Sink,
    *,
    after: int = 0,
    connection: str | None = None,
    type: str | None = None,
    report: Report | None = None,
) -> Exported:
    """Write the feed after a sequence, up to where it stands; a sink that has come further goes on from there."""
    try:
        begun = await _resume(sink, "changes")
        first = begun or Progress(what="changes", rows=0, feed=after)
        steps = _change_steps(store, first, connection=connection, type=type)
        return await _drive(sink, first, steps, resumed=begun is not None, report=report)
    finally:
        await sink.close()


Step = tuple[Sequence[Change], Progress]


async def _drive(
    sink: Sink, first: Progress, steps: AsyncIterator[Step], *, resumed: bool, report: Report | None
) -> Exported:
    last = first
    async for rows, last in steps:
        await sink.write(rows, position=msgspec.json.encode(last).decode())
        if report is not None:
            report(last.rows)
    await sink.finish()
    return Exported(rows=last.rows, written=last.rows - first.rows, position=last.feed, resumed=resumed)


async def _resume(sink: Sink, what: What) -> Progress | None:
    position = await sink.open()
    if position is None:
        return None
    try:
        found = msgspec.json.decode(position, type=Progress)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise UsageError(
            "The position of this export is not readable.", hint="Remove the file to begin anew."
        ) from error
    if found.what != what:
        raise UsageError(f"This file holds {found.what}, not {what}.", hint="Give another file.")
    return found


async def _record_steps(
    store: Store, progress: Progress, *, connection: str | None, type: str | None, deleted: bool | None
) -> AsyncIterator[Step]:
    names = await _connectors(store)
    gathered: list[Change] = []
    after, more = progress.after, True
    while more:
        page = await store.records(connection=connection, type=type, deleted=deleted, after=after, limit=LIST_LIMIT_MAX)
        more = len(page) == LIST_LIMIT_MAX
        if page:
            after = record_cursor(page[-1])
            gathered += [change(record.current, names) for record in page]
        if gathered and (not more or len(gathered) >= WRITE_CHANGES_MAX):
            progress = Progress(what="records", rows=progress.rows + len(gathered), feed=progress.feed, after=after)
            yield gathered, progress
            gathered = []


async def _change_steps(
    store: Store, progress: Progress, *, connection: str | None, type: str | None
) -> AsyncIterator[Step]:
    names = await _connectors(store)
    until = (await store.changes(after=progress.feed, limit=1)).high_water
    if progress.feed > until:
        raise UsageError(
            f"The feed ends at {until}, before position {progress.feed}.",
            hint="This file was exported from another database: give another file.",
        )
    gathered: list[Change] = []
    position = progress.feed
    while position < until:
        feed = await store.changes(after=position, limit=LIST_LIMIT_MAX, connection=connection, type=type)
        ended = not feed.changes
        position = until if ended and feed.position <= position else feed.position
        gathered += changes(feed.changes, names)
        if position >= until or len(gathered) >= WRITE_CHANGES_MAX:
            progress = Progress(what="changes", rows=progress.rows + len(gathered), feed=position)
            yield gathered, progress
            gathered = []


async def _connectors(store: Store) -> Mapping[str, str]:
    return {one.key: one.connector for one in await store.connections()}
