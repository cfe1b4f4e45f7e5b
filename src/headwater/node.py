"""The contract of what the nodes of one database share: a queue whose jobs are made in the tick's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from headwater.intention import Decide, TickResult, Transaction
from headwater.run import RunRef
from headwater.store import RunStore


class SharedQueue(Protocol):
    """What of an engine takes part in the tick of a store that many nodes share: `Engine`'s own methods."""

    async def submit(self, transaction: Transaction | None, runs: Sequence[RunRef]) -> None:
        """Take these runs, which may be none, with the transaction."""
        ...

    async def waiting(self, transaction: Transaction) -> Sequence[int]:
        """The ids of the submitted runs that nobody has begun."""
        ...


class SharedRunStore(RunStore, Protocol):
    """A store that many nodes work on at once, with one queue."""

    async def tick_shared(
        self,
        at: datetime,
        *,
        decide: Decide,
        queue: SharedQueue,
        under_way_max: int,
        per_connection_max: int,
        lease_seconds: float,
    ) -> TickResult:
        """As `tick`, and what is admitted is submitted to `queue` in the same transaction, or nothing happened.

        At most `under_way_max` runs are under way on all nodes together. A run that waits in the queue keeps its lease:
        nobody is at work on it who could be dead.
        """
        ...
