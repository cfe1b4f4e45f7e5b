"""Reading the change feed under a name: a consumer knows how far it has come, and goes on there after any crash.

snapshot ── position = where the feed stood before it ──> slices, at least once each, in order, without a gap
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from headwater.clock import Clock
from headwater.errors import NotFoundError, UsageError
from headwater.intention import LIST_LIMIT_MAX, Feed
from headwater.record import Record, record_cursor
from headwater.sink import Change, change, changes
from headwater.store import Store

NAME_CHARACTERS_MAX = 100
WAIT_SECONDS = 30.0  # a reader that waits looks again at least so often: another process may have written


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Some changes, and the position after them."""

    changes: Sequence[Change]
    position: int
    high_water: int  # the newest sequence there is

    @property
    def lag(self) -> int:
        """How many sequences lie behind this slice: at least as many as changes that the consumer has not taken."""
        return max(0, self.high_water - self.position)


class Consumer:
    """A named reader of the feed, or of one connection, type or tenant in it."""

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        clock: Clock,
        connection: str | None = None,
        type: str | None = None,
        tenant: str | None = None,
    ) -> None:
        if not 0 < len(name) <= NAME_CHARACTERS_MAX or not name.isprintable():
            raise UsageError(f"A consumer has a name of 1 to {NAME_CHARACTERS_MAX} printable characters.")
        self.name = name
        self._store = store
        self._clock = clock
        self._connection = connection
        self._type = type
        self._tenant = tenant

    async def position(self) -> int:
        """How far it has come; 0 at first."""
        return await self._store.position(self.name)

    async def advance(self, position: int) -> None:
        """Note how far it has come; going back makes it read again."""
        await self._store.set_position(self.name, position, at=self._clock.now())

    async def lag(self) -> int:
        """How many sequences it is behind."""
        position = await self.position()
        return max(0, (await self._read(position, limit=1)).high_water - position)

    async def read(self, *, limit: int = LIST_LIMIT_MAX) -> Slice:
        """The next slice, empty at the end of the feed; the position stays where it is."""
        return await self._slice(await self._read(await self.position(), limit=limit))

    async def slices(self, *, limit: int = LIST_LIMIT_MAX) -> AsyncIterator[Slice]:
        """Slice after slice, up to what the feed holds now.

        The position moves on when the loop comes back for more: a slice whose handling was cut off is read again.
        """
        position = await self.position()
        until = (await self._read(position, limit=1)).high_water
        while position < until:
            feed = await self._read(position, limit=limit)
            if feed.changes:
                yield await self._slice(feed)
            elif feed.position == position:
                return
            await self.advance(feed.position)
            position = feed.position

    async def follow(self, *, limit: int = LIST_LIMIT_MAX, wait_seconds: float = WAIT_SECONDS) -> AsyncIterator[Slice]:
        """As `slices`, and then whatever comes, for ever."""
        while True:
            async for found in self.slices(limit=limit):
                yield found
            high_water = (await self._read(await self.position(), limit=1)).high_water
            await self._store.wait_for_changes(high_water, timeout_seconds=wait_seconds)

    async def snapshot(self, *, limit: int = LIST_LIMIT_MAX) -> AsyncIterator[Slice]:
        """Every current record that is not deleted; then the position is where the feed stood before the first.

        What changes meanwhile comes again by the feed: nothing is missed, some is seen twice, by the same version.
        Cut off, it begins anew.
        """
        before = (await self._read(0, limit=1)).high_water
        names = await self._connectors()
        for key in await self._keys():
            async for page in _record_pages(self._store, connection=key, type=self._type, limit=limit):
                found = [change(record.current, names) for record in page]
                yield Slice(changes=found, position=before, high_water=before)
        await self.advance(before)

    async def _read(self, after: int, *, limit: int) -> Feed:
        return await self._store.changes(
            after=after, limit=limit, connection=self._connection, type=self._type, tenant=self._tenant
        )

    async def _slice(self, feed: Feed) -> Slice:
        found = changes(feed.changes, await self._connectors()) if feed.changes else []
        return Slice(changes=found, position=feed.position, high_water=feed.high_water)

    async def _connectors(self) -> dict[str, str]:
        return {one.key: one.connector for one in await self._store.connections()}

    async def _keys(self) -> Sequence[str | None]:
        """The connections of the snapshot; None for all at once."""
        if self._tenant is None:
            return [self._connection]
        own = [one.key for one in await self._store.connections() if one.tenant == self._tenant]
        if self._connection is None:
            return own
        if self._connection not in own:
            raise NotFoundError(f"There is no connection `{self._connection}`.")
        return [self._connection]


async def _record_pages(
    store: Store, *, connection: str | None, type: str | None, limit: int
) -> AsyncIterator[Sequence[Record]]:
    after: str | None = None
    while page := await store.records(connection=connection, type=type, deleted=False, after=after, limit=limit):
        yield page
        if len(page) < limit:
            return
        after = record_cursor(page[-1])
