"""The SQLite store without its threads: the writer takes its turns on the virtual loop, a drawn moment after something
waits. What is in a transaction, what fails and what is told afterwards is the writer's own code.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import apsw

from headwater.stores.sqlite import store as sqlite_store
from headwater.stores.sqlite.database import connect_reader, connect_writer
from headwater.stores.sqlite.readers import Readers
from headwater.stores.sqlite.writer import Kind, Operation, Writer
from headwater.testing.virtual import Owner, owner

COMMIT_SECONDS_MAX = 0.005
COMMIT_SLOW = 0.01  # of the commits, the share that waits for a busy disk
COMMIT_SLOW_SECONDS_MAX = 2.0

Connect = Callable[[str], apsw.Connection]


class Kept:
    """Connections that one process leaves to the next, their statements planned: opening costs more than a brief life.

    What a process had begun when it died is undone, as by the file's next reader.
    """

    def __init__(self) -> None:
        self._free: dict[Connect, list[apsw.Connection]] = {}

    def take(self, connect: Connect, path: str) -> apsw.Connection:
        """A connection that was left, or a new one."""
        left = self._free.get(connect)
        return left.pop() if left else connect(path)

    def leave(self, connect: Connect, db: apsw.Connection) -> None:
        """Leave a connection that `connect` made to whoever takes it next."""
        if db.in_transaction:
            db.execute("ROLLBACK")
        self._free.setdefault(connect, []).append(db)

    def close(self) -> None:
        """Close all that nobody took."""
        for left in self._free.values():
            for db in left:
                db.close()
        self._free.clear()


class Committed:
    """Whoever is told of each transaction, after it and before anybody who waited for it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.kept: Kept | None = None  # None: who ends closes
        self.on_commit: Callable[[Owner | None, Sequence[Operation]], None] = lambda process, batch: None  # noqa: ARG005

    def let_go(self, connect: Connect, db: apsw.Connection) -> None:
        """The end of a connection that `connect` made."""
        if self.kept is None:
            db.close()
        else:
            self.kept.leave(connect, db)


class SteppedWriter(Writer):
    """A `Writer` whose turns are callbacks of the loop."""

    committed_by: Committed  # set by `stepped`

    async def open(self) -> None:
        """See `Writer.open`."""
        self._process = owner()
        self._db = await asyncio.get_running_loop().run_in_executor(None, self._opened)
        self._thread = cast("Any", self)  # there is none; the writer only asks whether it was opened
        self._ahead: Operation | None = None
        self._is_called = False
        if self._process is not None:
            self._process.on_death.append(self._let_go)

    async def close(self) -> None:
        """See `Writer.close`. Of a dead process, what waits is never written."""
        if self._closing or self._thread is None:
            return
        self._closing = True
        if self._process is None or not self._process.is_dead:
            while self._ahead or not self._queue.empty():
                self._take_turn()
        self._let_go()

    def submit(self, kind: Kind, work: Any, *, weight: int = 1) -> asyncio.Future[Any]:
        """See `Writer.submit`."""
        if self._process is not None:
            self._process.live()
        future = super().submit(kind, work, weight=weight)
        self._call()
        return future

    def _call(self) -> None:
        if self._is_called:
            return
        self._is_called = True
        chance = self.committed_by.chance
        is_slow = chance.random() < COMMIT_SLOW
        seconds = chance.random() * (COMMIT_SLOW_SECONDS_MAX if is_slow else COMMIT_SECONDS_MAX)
        asyncio.get_running_loop().call_later(seconds, self._called)

    def _called(self) -> None:
        self._is_called = False
        if self._closing or (self._process is not None and self._process.is_dead):
            return
        self._take_turn()
        if self._ahead or not self._queue.empty():
            self._call()

    def _take_turn(self) -> None:
        first = self._ahead or self._queue.get_nowait()
        assert first is not None, "a stepped writer is closed without a word in its queue"
        self._ahead, _ = self.turn(first)

    def _carry_out(self, batch: Sequence[Operation]) -> None:
        try:
            super()._carry_out(batch)
        finally:
            self.committed_by.on_commit(self._process, batch)

    def _let_go(self) -> None:
        self._closing = True
        if hasattr(self, "_db"):
            self.committed_by.let_go(connect_writer, self._db)
            del self._db


class SteppedReaders(Readers):
    """`Readers` whose connections outlive them."""

    committed_by: Committed  # set by `stepped`

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        super().__init__(connect)
        if (process := owner()) is not None:
            process.on_death.append(self.close)

    def close(self) -> None:
        """See `Readers.close`."""
        left, self._connections = self._connections, []
        for db in left:
            self.committed_by.let_go(connect_reader, db)
        super().close()


@contextmanager
def stepped(chance: random.Random, *, keeps_connections: bool = False) -> Iterator[Committed]:
    """Every SQLite store that is made during the block is stepped; all are of one file, if it `keeps_connections`."""
    committed = Committed(chance)
    stand_ins: dict[str, Any] = {
        "Writer": type("Writer", (SteppedWriter,), {"committed_by": committed}),
        "Readers": type("Readers", (SteppedReaders,), {"committed_by": committed}),
    }
    if keeps_connections:
        kept = committed.kept = Kept()
        stand_ins |= {one.__name__: partial(kept.take, one) for one in (connect_writer, connect_reader)}
    before = {name: getattr(sqlite_store, name) for name in stand_ins}
    vars(sqlite_store).update(stand_ins)
    try:
        yield committed
    finally:
        vars(sqlite_store).update(before)
        if committed.kept is not None:
            committed.kept.close()
