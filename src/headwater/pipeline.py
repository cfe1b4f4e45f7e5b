"""The overlap of fetch and commit: while pages commit, the next ones are fetched, and the store folds what waits.

    submit ──> gathered, while pages come quickly ──> given to the store ──> durable

Order is kept: pages are given to the store in the order of their numbers, and once one fails, the store refuses those
after it (each commit names its number, and only the next one of a run is taken).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from headwater import trace
from headwater.clock import Clock
from headwater.intention import CommitResult, PageCommit
from headwater.record import Counts
from headwater.store import RunStore

RECORDS_IN_FLIGHT_MAX = 15_000  # fetched and not yet committed: bounds the memory of a run
PAGES_IN_FLIGHT_MAX = 200
# Many small commits cost more than few large ones, and nobody waits for a page whose successor is nearly here. One that
# took longer to come is committed at once, with all before it; and so are they when the next one keeps them waiting.
GATHERED_RECORDS_MAX = 5_000
GATHERED_PAGES_MAX = 50
GATHERED_SECONDS_MAX = 1.0
QUICK_PAGE = timedelta(milliseconds=50)


class Pipeline:
    """The commits of one run that are under way."""

    def __init__(self, store: RunStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._gathered: list[PageCommit] = []
        self._overdue: asyncio.Task[None] | None = None  # commits what was gathered, after a while
        self._waiting: deque[tuple[PageCommit, asyncio.Task[CommitResult]]] = deque()
        self._records = 0  # gathered and waiting
        self.on_commit: Callable[[], None] = _nothing  # called whenever a page has become durable
        self.counts = Counts()  # of the durable pages
        self.pages = 0

    async def submit(self, page: PageCommit) -> None:
        """Take `page` to be committed, waiting for earlier ones while too much is in flight.

        Raises what an earlier commit raised; `page` is then not submitted.
        """
        records = len(page.emissions)
        while self._waiting and (self._waiting[0][1].done() or self._is_full(records)):
            await self._settle_oldest()
        self._gathered.append(page)
        self._records += records
        if (
            not page.has_more
            or page.at - page.started_at > QUICK_PAGE
            or len(self._gathered) >= GATHERED_PAGES_MAX
            or sum(len(one.emissions) for one in self._gathered) >= GATHERED_RECORDS_MAX
        ):
            self._commit()
        elif self._overdue is None:
            self._overdue = asyncio.create_task(self._commit_overdue())

    async def settle(self) -> None:
        """Return once every submitted page is durable; raises what the first one to fail raised."""
        self._commit()
        while self._waiting:
            await self._settle_oldest()

    async def _commit_overdue(self) -> None:
        await self._clock.sleep(GATHERED_SECONDS_MAX)
        self._commit()

    def _commit(self) -> None:
        pages = self._taken()
        self._waiting.extend((page, asyncio.ensure_future(self._store.commit_page(page))) for page in pages)

    def _taken(self) -> list[PageCommit]:
        pages, self._gathered = self._gathered, []
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
        return pages

    def _is_full(self, records: int) -> bool:
        pages = len(self._waiting) + len(self._gathered)
        return pages >= PAGES_IN_FLIGHT_MAX or self._records + records > RECORDS_IN_FLIGHT_MAX

    async def _settle_oldest(self) -> None:
        page, task = self._waiting[0]
        try:
            # Shielded: a run that is cancelled still wants to know what became of its commits.
            result = await asyncio.shield(task)
        except Exception:
            await self._discard()
            raise
        self._waiting.popleft()
        self._records -= len(page.emissions)
        self.counts.add(result.counts)
        trace.note(
            "headwater.page",
            start=page.started_at,
            end=self._clock.now(),
            run_id=page.ref.run_id,
            stream=page.ref.stream_key,
            page=page.number,
            records=result.counts.total,
            changed=result.counts.changed,
            quarantined=result.counts.quarantined,
        )
        self.pages += 1
        self.on_commit()

    async def _discard(self) -> None:
        tasks = [task for _, task in self._waiting]
        self._waiting.clear()
        self._taken()
        self._records = 0
        await asyncio.gather(*tasks, return_exceptions=True)


def _nothing() -> None:
    pass
