"""Many waiting items become few calls: whatever gathered while the call before ran goes into the next one.

So a store commits as often as it can and each commit carries as much as there is; no timer delays a lone item.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from headwater.errors import StoreUnavailableError

T = TypeVar("T")
R = TypeVar("R")


class Gather(Generic[T, R]):
    """Calls `carry_out` with the gathered items, at most `items_max` at once; it answers each item in their order.

    An exception in an answer's place, or raised by a call with a single item, is that item's. A call with many that
    raises is repeated item by item, so that one bad item does not fail its neighbours; `carry_out` must bear that.
    `settled` is told how many items were answered.
    """

    def __init__(
        self,
        carry_out: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        items_max: int,
        settled: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._carry_out = carry_out
        self._items_max = items_max
        self._settled = settled
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._worker: asyncio.Task[None] | None = None

    def add(self, item: T) -> asyncio.Future[R]:
        """Take an item; the future is its answer."""
        if self._worker is None or self._worker.done():
            self._loop = asyncio.get_running_loop()
            self._worker = self._loop.create_task(self._work())
        answer: asyncio.Future[R] = self._loop.create_future()
        self._waiting.append((item, answer))
        return answer

    async def drain(self) -> None:
        """Return once nothing waits."""
        if self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[: self._items_max], self._waiting[self._items_max :]
            try:
                await self._carry(batch)
            except BaseException:
                unanswered = [answer for _, answer in batch + self._waiting if answer.cancel()]
                self._waiting = []
                self._settled(len(unanswered))
                raise

    async def _carry(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._carry_out([item for item, _ in batch])
        except Exception as error:
            if len(batch) > 1 and not isinstance(error, StoreUnavailableError):
                for one in batch:
                    await self._carry([one])
                return
            results = [error] * len(batch)
        assert len(results) == len(batch), "each item has its answer"
        for (_, answer), result in zip(batch, results, strict=True):
            _settle(answer, result)
        self._settled(len(batch))


def _settle(answer: asyncio.Future[R], result: R | Exception) -> None:
    if answer.done():
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
