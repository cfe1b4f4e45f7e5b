"""Who waits for the change feed is woken by a commit of this process at once, and by another node's with its notice.

A notice is sent after the commit, in a statement of its own: within a transaction, NOTIFY would have the commits of all
nodes follow each other. A notice that is lost costs a reader the time that it waits anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg

from headwater.clock import Clock
from headwater.errors import StartError, StoreUnavailableError
from headwater.stores.postgres.database import Database, execute

CHANNEL = "headwater_feed"


class Watch:
    """The readers of this process that wait, and its ear for the other nodes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._changed = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._notifier: asyncio.Task[None] | None = None
        self._is_noted = False

    def note(self) -> None:
        """The feed may have grown by a commit of this process: tell everybody, the other nodes in a moment."""
        self._wake()
        self._is_noted = True
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.get_running_loop().create_task(self._notify())

    async def wait(self, is_beyond: Callable[[], Awaitable[bool]], *, timeout_seconds: float) -> None:
        """Return once `is_beyond`, asked at first and after every notice, or after the time."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.get_running_loop().create_task(self._listen())
        alarm = asyncio.ensure_future(self._clock.sleep(timeout_seconds))
        try:
            while not alarm.done():
                changed = self._changed
                if await is_beyond():
                    return
                waiting = asyncio.ensure_future(changed.wait())
                await asyncio.wait({waiting, alarm}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        finally:
            alarm.cancel()

    async def close(self) -> None:
        """Stop listening; a notice on its way is sent."""
        if self._notifier is not None:
            await asyncio.wait([self._notifier])
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _notify(self) -> None:
        while self._is_noted:
            self._is_noted = False
            try:
                await self._database.read(lambda db: execute(db, f"NOTIFY {CHANNEL}"))
            except StoreUnavailableError:
                return

    async def _listen(self) -> None:
        # A listener that fails is made anew by the next reader that waits; meanwhile its time limit serves.
        try:
            async with self._database.alone() as db:
                await db.execute(f"LISTEN {CHANNEL}".encode())
                self._wake()  # what came before the ear was open
                async for _ in db.notifies():
                    self._wake()
        except (psycopg.Error, StartError, StoreUnavailableError):
            return
