"""The contract of an engine: who carries out which run, when, where. Policy lives in the store, not here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from headwater.intention import Transaction
from headwater.node import SharedQueue
from headwater.run import RunRef

Handler = Callable[[RunRef], Awaitable[object]]  # what it returns is nobody's


class Engine(Protocol):
    """Dispatches admitted runs to a handler, at most `slots` at a time, each exactly as often as it was submitted.

    An engine keeps no policy and need not survive a crash: what was in flight is admitted anew by the tick, with a
    higher epoch, and the store fences whoever held the lower one (Invariant 9).
    """

    transactional: bool  # submit joins the store's transaction; otherwise it is called after the commit

    async def submit(self, transaction: Transaction | None, runs: Sequence[RunRef]) -> None:
        """Take these runs; the same (run id, epoch) given twice runs once. Smaller priority first."""
        ...

    async def cancel(self, run_id: int) -> None:
        """Drop the run if it waits, interrupt it if it runs; nothing if it is unknown."""
        ...

    async def serve(self, handler: Handler, *, slots: int) -> None:
        """Carry out submitted runs until `drain`; return when the running ones have finished."""
        ...

    def drain(self) -> None:
        """Start no further run; `serve` returns once those under way have ended."""
        ...

    @property
    def depth(self) -> int:
        """Runs submitted and not yet finished; of a transactional engine, only those under way in this process."""
        ...


class SharedEngine(Engine, SharedQueue, Protocol):
    """A transactional engine: its queue is shared by all nodes of one store."""
