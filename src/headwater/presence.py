"""A node tells the others that it is here, and hears what they made work of.

every few seconds: store.note_node ──> the nodes that are here ──> slots of the fleet ──> the ticker
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.errors import StoreUnavailableError
from headwater.node import Node, SharedStore, Topic

BEAT_SECONDS = 5.0
AWAY_BACKOFF = Backoff(wait_initial=0.5, wait_max=15.0, wait_min=0.1)
LEAVE_SECONDS_MAX = 2.0  # a node that cannot say goodbye is taken for gone a little later

_log = logging.getLogger("headwater.presence")


def this_node(clock: Clock, *, url: str, roles: Collection[str], slots: int) -> Node:
    """The node that this process is."""
    return Node(
        id=secrets.token_hex(4),
        host=socket.gethostname(),
        pid=os.getpid(),
        url=url,
        roles=frozenset(roles),
        slots=slots if "worker" in roles else 0,
        runs=0,
        started_at=clock.now(),
    )


class Presence:
    """The loop that keeps a node in the list, until it is cancelled; then the node is taken from it."""

    def __init__(
        self,
        store: SharedStore,
        clock: Clock,
        node: Node,
        *,
        runs: Callable[[], int],
        on_nodes: Callable[[Sequence[Node]], None],
    ) -> None:
        """`runs` tells what is under way here; `on_nodes` is given all nodes after each beat."""
        self.node = node
        self._store = store
        self._clock = clock
        self._runs = runs
        self._on_nodes = on_nodes
        self._failures = 0

    async def serve(self) -> None:
        """Beat until cancelled, whether or not the database is there."""
        try:
            while True:
                await self._clock.sleep(await self.beat())
        finally:
            with suppress(StoreUnavailableError, TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS_MAX):
                    await self._store.forget_node(self.node.id)

    async def hear(self, on_topic: Callable[[Topic], None]) -> None:
        """See `SharedStore.hear`."""
        await self._store.hear(on_topic)

    async def beat(self) -> float:
        """Be seen once; the seconds until the next time."""
        self.node = replace(self.node, runs=self._runs())
        try:
            nodes = await self._store.note_node(self.node)
        except StoreUnavailableError as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("this node cannot be seen by the others: %s", error)
            return AWAY_BACKOFF.delay_seconds(self._failures, random=self._clock.random())
        if self._failures:
            _log.info("this node is seen again, after %d times that it was not", self._failures)
            self._failures = 0
        self._on_nodes(nodes)
        return BEAT_SECONDS
