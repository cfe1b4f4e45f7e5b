"""Connections to the file, named queries, and the translation of SQLite's errors: all that knows apsw's own ways.

Queries answer a whole table as one JSON text where a loop is hot: every step of a statement gives the interpreter's
lock away and has to win it back, which under load costs more than the row itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec

from headwater.errors import HeadwaterError, StartError, StoreUnavailableError
from headwater.stores import query
from headwater.stores.sqlite import write_ahead

MEMORY = ":memory:"
BUSY_TIMEOUT_MILLISECONDS = 10_000  # another process may hold the write lock for a batch of its own
PAGE_BYTES = 8192
WAL_PAGES = 16_000  # 128 MB before the writer moves the log into the file
WRITER_CACHE_KIB = 24 * 1024
READER_CACHE_KIB = 16 * 1024
STATEMENTS_KEPT = 512  # more than we have: a statement that was put aside costs its planning again

Row = dict[str, Any]

_HERE = Path(__file__).parent
_FATAL = (
    apsw.IOError,
    apsw.FullError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
)


def queries(file: str) -> Mapping[str, str]:
    """The named queries of a `.sql` file beside this module."""
    return query.queries(_HERE / file)


def connect_writer(path: str) -> apsw.Connection:
    """The one connection of this process that writes."""
    if "ENABLE_CARRAY" not in apsw.compile_options:
        raise StartError(
            "This build of apsw has no carray extension.", hint="Install apsw from PyPI, not from the system."
        )
    try:
        if path != MEMORY:
            write_ahead.renew(path)
        db = apsw.Connection(path, statementcachesize=STATEMENTS_KEPT)
        _set_up_writer(db)
    except apsw.Error as error:
        raise cannot_be_opened(path, error) from error
    return db


def cannot_be_opened(path: str, error: apsw.Error) -> StartError:
    """What is told of a file that SQLite cannot open, read or bring up to date."""
    return StartError(f"The database {path} cannot be opened: {error}.", detail=type(error).__name__)


def connect_reader(path: str) -> apsw.Connection:
    """A connection that can only read."""
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    db.execute("PRAGMA query_only = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
    return db


def rows(db: apsw.Connection, sql: str, **parameters: Any) -> list[Row]:
    """All rows, as dictionaries."""
    cursor = db.execute(sql, parameters)
    try:
        names = [column[0] for column in cursor.get_description()]
    except apsw.ExecutionCompleteError:
        return []
    return [dict(zip(names, values, strict=True)) for values in cursor]


def row(db: apsw.Connection, sql: str, **parameters: Any) -> Row | None:
    """The first row, or None."""
    return next(iter(rows(db, sql, **parameters)), None)


def value(db: apsw.Connection, sql: str, **parameters: Any) -> Any:
    """The first column of the first row, or None."""
    return db.execute(sql, parameters).get


def execute(db: apsw.Connection, sql: str, **parameters: Any) -> int:
    """Carry out a statement; how many rows it changed."""
    db.execute(sql, parameters).fetchall()
    return db.changes()


def table(db: apsw.Connection, sql: str, **parameters: Any) -> list[Any]:
    """The rows of a query that answers one JSON array, in one step."""
    text = db.execute(sql, parameters).get
    found: list[Any] = msgspec.json.decode(text) if text else []
    return found


def json_text(rows: Any) -> str:
    """Rows as the JSON text that a set-wise statement is given."""
    return msgspec.json.encode(rows).decode()


@contextmanager
def savepoint(db: apsw.Connection) -> Iterator[None]:
    """All of the body or nothing, within the transaction under way."""
    db.execute("SAVEPOINT operation")
    try:
        yield
    except BaseException:
        if db.in_transaction:  # a full disk has already rolled all of it back
            db.execute("ROLLBACK TO operation")
            db.execute("RELEASE operation")
        raise
    db.execute("RELEASE operation")


def is_fatal(error: BaseException) -> bool:
    """Whether the file can no longer be trusted to keep what it is given."""
    return isinstance(error, _FATAL)


def translated(error: Exception) -> Exception:
    """The error as the platform knows it."""
    if isinstance(error, apsw.Error) and not isinstance(error, HeadwaterError):
        translation = StoreUnavailableError(f"SQLite refused: {error}.", detail=type(error).__name__)
        translation.__cause__ = error
        return translation
    return error


def _set_up_writer(db: apsw.Connection) -> None:
    db.set_busy_timeout(BUSY_TIMEOUT_MILLISECONDS)
    db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
    mode = db.execute("PRAGMA journal_mode = WAL").get
    if mode not in ("wal", "memory"):
        raise StartError(
            f"The file system of the database has no write-ahead log: its journal stays {mode}.",
            hint="Put the file on a local disk.",
        )
    # FULL: each commit is on disk before anybody is told. NORMAL loses acknowledged rows at a power cut.
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
    db.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}").fetchall()
