"""The one thread that writes: it takes every operation that waits into one transaction (group commit, no timer).

submit ──> queue ──> BEGIN ── all as one ────────────────── COMMIT (fsync) ──> all resolved
                        └── one fails: BEGIN ── savepoint each ──┘

While one batch commits the next one gathers. A savepoint keeps what every page that is written held before, in memory,
so that neighbours of a kind have none: an operation that fails takes all of them back, and each is carried out again in
its own. A COMMIT that fails fails the batch; a file that cannot be written any more breaks the writer for good. The log
is moved into the file between two batches, after the callers were told.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Protocol

import apsw

from headwater.errors import StoreUnavailableError
from headwater.failpoint import failpoint
from headwater.stores.sqlite import database
from headwater.stores.sqlite.database import is_fatal, savepoint, translated

WAITING_MAX = 20_000  # operations; more are refused
BATCH_OPERATIONS_MAX = 1_000
BATCH_WEIGHT_MAX = 10_000  # records and deliveries of one transaction: fewer rewrites of index pages
# The writer wins the interpreter's lock back after each statement: at Python's 5 ms it would mostly wait for it.
SWITCH_INTERVAL_SECONDS = 0.0001


class Group(Protocol):
    """Carries out neighbours of one kind: a result or an exception for each."""

    def __call__(self, db: apsw.Connection, works: Sequence[Any], /, *, together: bool) -> Sequence[Any]:
        """An exception that is raised leaves the transaction in pieces; with `together` False there is none but of the
        file itself.
        """


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What sort of operation it is: how neighbours of the same kind are carried out, and what their commit passes."""

    group: Group | None = None  # all neighbours at once; else one by one
    before_commit: str | None = None  # failpoint
    after_commit: str | None = None  # failpoint
    feeds: bool = False  # may append to the change feed


SINGLE = Kind()


@dataclass(eq=False, kw_only=True)
class Operation:
    """One caller's work and the future that waits for it."""

    kind: Kind
    work: Any  # a function of the connection; of a grouped kind, what its group function takes
    weight: int
    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    result: Any = field(default=None)


class Writer:
    """Owns the writing connection; `committed` is called in its thread after a commit that may have fed the feed."""

    def __init__(self, connect: Callable[[], apsw.Connection], committed: Callable[[apsw.Connection], None]) -> None:
        self._connect = connect
        self._committed = committed
        self._queue: SimpleQueue[Operation | None] = SimpleQueue()
        self._lock = Lock()
        self._waiting = 0
        self._closing = False
        self._log_pages = 0
        self._thread: Thread | None = None
        self.broken: str | None = None  # why nothing can be written any more

    async def open(self) -> None:
        """Connect and start; what the connecting raises is raised here."""
        self._db = await asyncio.get_running_loop().run_in_executor(None, self._opened)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_SECONDS))
        self._thread = Thread(target=self._run, name="headwater-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Commit what waits, then let go of the file."""
        with self._lock:
            if self._closing or self._thread is None:
                return
            self._closing = True
            self._queue.put(None)
        await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    def submit(self, kind: Kind, work: Any, *, weight: int = 1) -> asyncio.Future[Any]:
        """Queue an operation; the future is done once it is durable, or fails."""
        loop = asyncio.get_running_loop()
        operation = Operation(kind=kind, work=work, weight=weight, future=loop.create_future(), loop=loop)
        with self._lock:
            self._refuse_if_unable()
            self._waiting += 1
            self._queue.put(operation)
        return operation.future

    def _refuse_if_unable(self) -> None:
        if self.broken:
            raise StoreUnavailableError(f"The store is broken: {self.broken}.", hint="Free the disk, then restart.")
        if self._closing or self._thread is None:
            raise StoreUnavailableError("The store is closed.")
        if self._waiting >= WAITING_MAX:
            raise StoreUnavailableError(f"More than {WAITING_MAX} operations wait for the store.")

    def _opened(self) -> apsw.Connection:
        db = self._connect()
        # In the place of SQLite's own checkpoints, which tell nobody of their errors: of a failed fsync of the file.
        db.set_wal_hook(self._note_log)
        return db

    def _note_log(self, db: apsw.Connection, name: str, pages: int) -> int:  # noqa: ARG002  as SQLite calls it
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _shorten_log(self) -> None:
        if self._log_pages < database.WAL_PAGES or self.broken:
            return
        self._log_pages = 0
        try:
            self._db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.Error as error:
            if is_fatal(error):
                self.broken = f"{error} (as the log was moved into the file)"

    def _run(self) -> None:
        ahead: Operation | None = None
        closing = False
        while not closing and (first := ahead or self._queue.get()) is not None:
            ahead, closing = self.turn(first)
        self._db.close()

    def turn(self, first: Operation) -> tuple[Operation | None, bool]:
        """One transaction: `first` and whatever waits behind it. An operation that found no room in it, and whether
        the writer is to close.
        """
        batch, ahead, closing = self._gather(first)
        self._carry_out([operation for operation in batch if not operation.future.cancelled()])
        with self._lock:
            self._waiting -= len(batch)
        _resolve_all(batch)
        self._shorten_log()
        return ahead, closing

    def _gather(self, first: Operation) -> tuple[list[Operation], Operation | None, bool]:
        batch, weight = [first], first.weight
        while len(batch) < BATCH_OPERATIONS_MAX:
            try:
                operation = self._queue.get_nowait()
            except Empty:
                break
            if operation is None:
                return batch, None, True
            if weight + operation.weight > BATCH_WEIGHT_MAX:
                return batch, operation, False
            batch.append(operation)
            weight += operation.weight
        return batch, None, False

    def _carry_out(self, batch: Sequence[Operation]) -> None:
        if not batch:
            return
        try:
            if self.broken:
                raise StoreUnavailableError(f"The store is broken: {self.broken}.")
            self._transact(batch)
        except Exception as error:
            if is_fatal(error):
                self.broken = str(error)
            failure = translated(error)
            if not isinstance(failure, StoreUnavailableError):
                failure = StoreUnavailableError(f"The commit failed: {error}.")
                failure.__cause__ = error
            for operation in batch:
                operation.result = failure
        finally:
            self._roll_back()

    def _transact(self, batch: Sequence[Operation]) -> None:
        db = self._db
        kinds = {id(operation.kind): operation.kind for operation in batch}.values()
        db.execute("BEGIN IMMEDIATE")  # a lock that is held elsewhere is waited for once
        try:
            _perform(db, batch, together=True)
        except Exception as error:
            if is_fatal(error):
                raise
            self._roll_back()
            db.execute("BEGIN IMMEDIATE")
            _perform(db, batch, together=False)
        for kind in kinds:
            if kind.before_commit:
                failpoint(kind.before_commit)
        db.execute("COMMIT")
        for kind in kinds:
            if kind.after_commit:
                failpoint(kind.after_commit)
        if any(kind.feeds for kind in kinds):
            self._committed(db)

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except apsw.Error as error:
            self.broken = str(error)


def _perform(db: apsw.Connection, batch: Sequence[Operation], *, together: bool) -> None:
    for kind, neighbours in groupby(batch, key=lambda operation: operation.kind):
        operations = list(neighbours)
        works = [operation.work for operation in operations]
        if kind.group is None:
            results: Sequence[Any] = [attempt(db, work) for work in works]
        else:
            results = kind.group(db, works, together=together)
        for operation, result in zip(operations, results, strict=True):
            operation.result = result


def attempt(db: apsw.Connection, work: Callable[[apsw.Connection], Any]) -> Any:
    """The result of one operation within its own savepoint, or the exception that took it back."""
    try:
        with savepoint(db):
            return work(db)
    except Exception as error:
        if is_fatal(error) or not db.in_transaction:
            raise
        return translated(error)


def _resolve_all(batch: Sequence[Operation]) -> None:
    for loop, operations in _by_loop(batch):
        try:
            loop.call_soon_threadsafe(_resolve, operations)
        except RuntimeError:  # the caller's loop is gone, and with it whoever waited
            continue


def _by_loop(batch: Sequence[Operation]) -> Iterator[tuple[asyncio.AbstractEventLoop, list[Operation]]]:
    loops = {id(operation.loop): operation.loop for operation in batch}
    for loop in loops.values():
        yield loop, [operation for operation in batch if operation.loop is loop]


def _resolve(operations: Sequence[Operation]) -> None:
    for operation in operations:
        if operation.future.done():
            continue
        if isinstance(operation.result, Exception):
            operation.future.set_exception(operation.result)
        else:
            operation.future.set_result(operation.result)
