"""The contract of what the nodes of one database share: their list, words of new work, and the queue.

A node is one process that serves. It has roles: `ingress` receives deliveries, `worker` carries out runs and dispatches
deliveries, `ticker` starts what is due, `dashboard` shows pages and answers the API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from headwater.intention import Decide, TickResult, Transaction
from headwater.run import RunRef
from headwater.store import RunStore, Store

HERE_SECONDS_MAX = 20.0  # a node that was silent for longer is taken for gone
CLOCK_OFFSET_SECONDS_MAX = 5.0  # a lease is a minute: nodes whose clocks differ by more soon take each other's runs

Topic = Literal["runs", "deliveries", "silences"]  # what there may be to do, or to know
TOPICS: tuple[Topic, ...] = ("runs", "deliveries", "silences")


@dataclass(frozen=True, kw_only=True)
class Node:
    """One process that serves, as it last told."""

    id: str
    host: str
    pid: int
    url: str  # by which its own machine reaches it
    roles: frozenset[str]
    slots: int  # runs that it carries out at once; 0 where it is no worker
    runs: int  # under way in it
    started_at: datetime
    silent_seconds: float = 0.0  # since it was seen, by the database's clock
    clock_offset_seconds: float = 0.0  # of its clock from the database's

    @property
    def is_here(self) -> bool:
        """It was seen lately."""
        return self.silent_seconds <= HERE_SECONDS_MAX

    @property
    def clock_warning(self) -> str:
        """What an operator is told where its clock is wrong; "" where it is right."""
        if abs(self.clock_offset_seconds) <= CLOCK_OFFSET_SECONDS_MAX:
            return ""
        return f"The clock of {self.host} is wrong: the database's decides, but its log is dated wrongly. Does NTP run?"


def slots_of(nodes: Sequence[Node]) -> int:
    """How many runs those of `nodes` that are here carry out at once."""
    return sum(node.slots for node in nodes if node.is_here)


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


class SharedStore(Store, SharedRunStore, Protocol):
    """Everything durable, with what its nodes tell each other."""

    async def clock_offset_seconds(self) -> float:
        """How far this machine's clock is ahead of the database's."""
        ...

    async def note_node(self, node: Node) -> Sequence[Node]:
        """Write down that this node is here, by the database's clock; all nodes, those of the last hour."""
        ...

    async def forget_node(self, node_id: str) -> None:
        """A node is gone."""
        ...

    async def nodes(self) -> Sequence[Node]:
        """All nodes of the last hour, by host."""
        ...

    async def silence(self, connection_id: int, *, until: datetime) -> None:
        """The provider wants nothing of this connection until then: nothing of it is admitted."""
        ...

    async def silences(self, at: datetime) -> Mapping[int, datetime]:
        """The connections whose providers want nothing at `at`, and until when."""
        ...

    async def hear(self, on_topic: Callable[[Topic], None]) -> None:
        """Call `on_topic` whenever any node made something of that kind; forever, also while the database is away.

        Words may come without work, and may be lost: whoever hears also looks by itself now and then.
        """
        ...
