"""Nodes tell each other that there is work: a word a topic, sent after the commit that made it.

A word that is lost costs the hearer the time that it would have waited anyway. Words sent while one is on its way, or
a moment after it, become one. As in `watch`, NOTIFY is a statement of its own: in a transaction, commits would follow
each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from functools import partial

import psycopg

from headwater.backoff import Backoff
from headwater.clock import Clock
from headwater.errors import StartError, StoreUnavailableError
from headwater.node import TOPICS, Topic
from headwater.stores.postgres.database import Connection, Database, execute

CHANNEL = "headwater_work"
SEND_PAUSE_SECONDS = 0.02  # between two words of a topic: each is a commit of its own, and wakes every node
HEAR_AGAIN = Backoff(wait_initial=0.5, wait_max=15.0, wait_min=0.1)

_logger = logging.getLogger(__name__)


class Signals:
    """The words of this process, and its ear for those of all nodes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._topics: set[Topic] = set()
        self._sender: asyncio.Task[None] | None = None
        self._pausing: asyncio.Future[None] | None = None
        self._next_at: dict[Topic, float] = {}  # when the next word of a topic may be sent
        self._is_closing = False

    def send(self, topic: Topic) -> None:
        """Tell every node, in a moment."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._hurry()
        if self._sender is None or self._sender.done():
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def hear(self, on_topic: Callable[[Topic], None]) -> None:
        """Call `on_topic` with each word, until cancelled; also once with each after a time of deafness."""
        failures = 0
        while True:
            try:
                async with self._database.alone() as db:
                    await db.execute(f"LISTEN {CHANNEL}".encode())
                    failures = 0
                    for topic in TOPICS:
                        on_topic(topic)
                    while True:
                        async for word in db.notifies(timeout=0):
                            for topic in TOPICS:
                                if topic == word.payload:
                                    on_topic(topic)
                        await _readable(db.fileno())
            except (psycopg.Error, StartError, StoreUnavailableError) as error:
                failures += 1
                _logger.debug("no word of other nodes is heard: %s", error)
            await self._clock.sleep(HEAR_AGAIN.delay_seconds(failures, random=self._clock.random()))

    async def close(self) -> None:
        """Return once the words on their way are sent, with no pause between them."""
        self._is_closing = True
        self._hurry()
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send(self) -> None:
        while self._topics:
            topics = await self._due()
            self._topics -= topics
            try:
                await self._database.read(partial(_notify, topics=topics))
            except StoreUnavailableError:
                return
            self._next_at |= dict.fromkeys(topics, self._clock.monotonic() + SEND_PAUSE_SECONDS)

    async def _due(self) -> set[Topic]:
        """The topics of which a word may be sent now, once there are any."""
        while True:
            now = self._clock.monotonic()
            wait = {topic: self._next_at.get(topic, now) - now for topic in self._topics}
            if due := {topic for topic, seconds in wait.items() if seconds <= 0 or self._is_closing}:
                return due
            self._pausing = asyncio.ensure_future(self._clock.sleep(min(wait.values())))
            await asyncio.wait([self._pausing])

    def _hurry(self) -> None:
        """Look again which topics are due."""
        if self._pausing is not None:
            self._pausing.cancel()


async def _readable(socket: int) -> None:
    """Return once there is something to read, or the connection is over.

    The driver's own wait would look ten times a second.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(socket, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(socket)


async def _notify(db: Connection, *, topics: Collection[Topic]) -> None:
    for topic in topics:
        await execute(db, f"NOTIFY {CHANNEL}, '{topic}'")
