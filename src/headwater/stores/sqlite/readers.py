"""The reading side: a few threads, each with a connection of its own, so that no reader waits for the writer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock, local
from typing import Any

import apsw

from headwater.errors import StoreUnavailableError
from headwater.stores.sqlite.database import translated

READERS_MAX = 4


class Readers:
    """A pool of reading connections; each read sees one committed state throughout."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._own = local()
        self._lock = Lock()
        self._connections: list[apsw.Connection] = []
        self._pool = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="headwater-reader")

    async def read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        """The result of a reading function."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)
        except RuntimeError as error:
            raise StoreUnavailableError("The store is closed.") from error
        return await future

    def close(self) -> None:
        """Let the reads under way end, then let go of the file."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for db in self._connections:
            db.close()

    def _read(self, work: Callable[[apsw.Connection], Any]) -> Any:
        try:
            db = self._connection()
            db.execute("BEGIN")
            try:
                return work(db)
            finally:
                db.execute("ROLLBACK")
        except Exception as error:
            translation = translated(error)
            if translation is error:
                raise
            raise translation from error

    def _connection(self) -> apsw.Connection:
        db: apsw.Connection | None = getattr(self._own, "db", None)
        if db is None:
            db = self._own.db = self._connect()
            with self._lock:
                self._connections.append(db)
        return db
