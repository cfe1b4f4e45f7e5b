"""A provider that wants silence is obeyed by every node: what one was told, the others know before their next request.

refusal with Retry-After ──> quota of this process ──> store.silence ──> admission
                                                           └── a word ──> quotas of the other nodes
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from datetime import timedelta

from headwater.client import HttpClients
from headwater.clock import Clock
from headwater.errors import NotFoundError, StoreUnavailableError
from headwater.node import SharedStore

_log = logging.getLogger("headwater.silence")


class Silences:
    """Carries silences from the clients of this process to the store, and from the store to these clients."""

    def __init__(self, store: SharedStore, clock: Clock, clients: HttpClients) -> None:
        self._store = store
        self._clock = clock
        self._clients = clients
        self._tasks: set[asyncio.Task[None]] = set()
        clients.on_silence = self.note

    def note(self, connection_id: int, seconds: float) -> None:
        """Tell the others, in a moment, that the provider wants nothing of this connection for so long."""
        self._start(self._write(connection_id, seconds))

    def learn(self) -> None:
        """Ask the store, in a moment, what the others were told."""
        self._start(self._read())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, connection_id: int, seconds: float) -> None:
        until = self._clock.now() + timedelta(seconds=seconds)
        try:
            await self._store.silence(connection_id, until=until)
        except (NotFoundError, StoreUnavailableError) as error:
            _log.debug("a silence of connection %d was not told: %s", connection_id, error)

    async def _read(self) -> None:
        at = self._clock.now()
        try:
            silences = await self._store.silences(at)
        except StoreUnavailableError as error:
            _log.debug("what other nodes were told is not known: %s", error)
            return
        for connection_id, until in silences.items():
            self._clients.block(connection_id, (until - at).total_seconds())
