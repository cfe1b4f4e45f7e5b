"""The time of a run: one task beside it that keeps the lease through long pages and ends what takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from headwater.catalog import PAGE_SECONDS_MAX
from headwater.clock import Clock
from headwater.errors import HandlerError, HeadwaterError, ProviderError, RetryError, RunEndedError, RunTimeoutError
from headwater.run import RunRef
from headwater.store import RunStore

T = TypeVar("T")

RENEWALS_PER_LEASE = 3  # two may fail before the lease is lost


class Watch:
    """Bounds one attempt of a run, as a context: its pages are awaited through `page`."""

    def __init__(
        self,
        ref: RunRef,
        *,
        store: RunStore,
        clock: Clock,
        lease_seconds: float,
        run_seconds_max: float,
        page_seconds_max: float = PAGE_SECONDS_MAX,
    ) -> None:
        self._ref = ref
        self._store = store
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._run_seconds_max = run_seconds_max
        self._page_seconds_max = page_seconds_max
        self._beat_seconds = min(lease_seconds / RENEWALS_PER_LEASE, page_seconds_max, run_seconds_max)
        self._begun = self._renewed = clock.monotonic()
        self._page_begun = self._begun
        self._page: asyncio.Task[Any] | None = None
        self._interruption: HeadwaterError | None = None

    async def __aenter__(self) -> Watch:
        self._beating = asyncio.create_task(self._beat())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beating.cancel()

    def renewed(self) -> None:
        """Note that the lease was just extended, by a commit."""
        self._renewed = self._clock.monotonic()

    async def page(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; raises `ProviderError` or `RunTimeoutError` when it takes too long, and `FencedError`
        when the lease is found lost meanwhile.
        """
        self._page_begun = self._clock.monotonic()
        if (error := self._interruption or self._run_timeout()) is not None:
            work.close()
            raise error
        self._page = page = asyncio.create_task(work)
        try:
            return await page
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                raise
            raise self._interruption or HandlerError("The handler cancelled itself.") from None
        finally:
            self._page = None

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(self._beat_seconds)
            # A handler may swallow its cancellation: it is told again at every beat.
            self._interrupt(self._interruption or self._run_timeout() or self._page_timeout() or await self._renew())

    def _run_timeout(self) -> RunTimeoutError | None:
        if self._clock.monotonic() - self._begun < self._run_seconds_max:
            return None
        return RunTimeoutError(
            f"The run was longer than its limit of {self._run_seconds_max:g} s.",
            hint="Its committed pages stay, and the next run goes on from there.",
        )

    def _page_timeout(self) -> ProviderError | None:
        if self._page is None or self._clock.monotonic() - self._page_begun < self._page_seconds_max:
            return None
        return ProviderError(f"One page took longer than {self._page_seconds_max:g} s.")

    async def _renew(self) -> HeadwaterError | None:
        if self._clock.monotonic() - self._renewed < self._lease_seconds / RENEWALS_PER_LEASE:
            return None
        try:
            await self._store.extend_lease(self._ref, at=self._clock.now(), lease_seconds=self._lease_seconds)
        except RunEndedError as error:
            return error
        except RetryError:
            return None  # the next beat tries again, while the lease lasts
        self.renewed()
        return None

    def _interrupt(self, error: HeadwaterError | None) -> None:
        if error is None:
            return
        self._interruption = error
        if self._page is not None:
            self._page.cancel()
