"""The embedded engine: a heap and as many tasks as there are slots, in one process, with no persistence of its own.

After a crash the store makes what was in flight wait again, and the tick admits it anew with a higher epoch.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Sequence

from headwater.engine import Handler
from headwater.intention import Transaction
from headwater.run import RunRef

RUNS_REMEMBERED_MAX = 10_000  # finished runs whose second submission is still recognised

_log = logging.getLogger("headwater.engines.local")


class LocalEngine:
    """Carries out runs in this process, smaller priority first and in the order of their submission within one."""

    transactional = False

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, RunRef]] = []
        self._waiting: dict[int, RunRef] = {}  # by run id; an entry of the heap that is not here was dropped
        self._running: dict[asyncio.Task[None], RunRef] = {}
        self._epochs: dict[int, int] = {}  # the highest epoch submitted of each run, oldest first
        self._submitted = 0
        self._changed = asyncio.Event()
        self._draining = False

    async def submit(self, transaction: Transaction | None, runs: Sequence[RunRef]) -> None:  # noqa: ARG002  the contract's
        """See `Engine`. A draining engine takes nothing: what is left waits in the store."""
        for ref in () if self._draining else runs:
            if ref.epoch <= self._epochs.get(ref.run_id, -1):
                continue
            self._remember(ref)
            self._submitted += 1
            self._waiting[ref.run_id] = ref
            heapq.heappush(self._heap, (ref.priority, self._submitted, ref))
        self._changed.set()

    async def cancel(self, run_id: int) -> None:
        """See `Engine`."""
        self._waiting.pop(run_id, None)
        for task, ref in self._running.items():
            if ref.run_id == run_id:
                task.cancel()

    async def serve(self, handler: Handler, *, slots: int) -> None:
        """See `Engine`. When it is cancelled itself, it interrupts the runs under way and waits for their end."""
        assert slots > 0, "an engine without slots carries out nothing"
        try:
            while not self._draining:
                self._changed.clear()
                while len(self._running) < slots and (ref := self._pop()) is not None:
                    self._start(handler, ref)
                await self._changed.wait()
            while self._running:
                await asyncio.wait(self._running)
        finally:
            await self._interrupt()

    def drain(self) -> None:
        """See `Engine`."""
        self._draining = True
        self._waiting.clear()
        self._heap.clear()
        self._changed.set()

    @property
    def depth(self) -> int:
        """See `Engine`."""
        return len(self._waiting) + len(self._running)

    def _remember(self, ref: RunRef) -> None:
        self._epochs.pop(ref.run_id, None)
        self._epochs[ref.run_id] = ref.epoch
        if len(self._epochs) > RUNS_REMEMBERED_MAX:
            del self._epochs[next(iter(self._epochs))]

    def _pop(self) -> RunRef | None:
        while self._heap:
            _, _, ref = heapq.heappop(self._heap)
            if self._waiting.get(ref.run_id) is ref:
                return self._waiting.pop(ref.run_id)
        return None

    def _start(self, handler: Handler, ref: RunRef) -> None:
        task = asyncio.create_task(_carry_out(handler, ref), name=f"run {ref.run_id}")
        self._running[task] = ref
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._changed.set()

    async def _interrupt(self) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def _carry_out(handler: Handler, ref: RunRef) -> None:
    try:
        await handler(ref)
    except Exception:
        # The handler ends its runs itself: what comes out of it is a bug of ours, and must not stop the others.
        _log.exception("run %d of stream %s was left without an end", ref.run_id, ref.stream_key)
