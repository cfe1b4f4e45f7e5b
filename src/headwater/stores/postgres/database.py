"""Connections to the server, transactions, and the translation of its errors: all that knows psycopg's own ways.

Statements are planned for what they are given, each time: a plan that is kept could not leave out the days that a list
of ids does not touch. The few that look at all days, and are asked all the time, are `prepared`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from headwater.errors import HeadwaterError, StartError, StoreUnavailableError
from headwater.failpoint import failpoint
from headwater.stores import query
from headwater.stores.postgres import arrays

CONNECTIONS_MAX = 10
CONNECT_SECONDS = 10.0  # for a connection, whether new or from the pool
AWAY_SECONDS = 1.0  # likewise while the server is known to be away: whoever asks has its own patience
RECONNECT_SECONDS = 5.0  # the pool's pauses between attempts grow so long: it would find a server late that is back
ATTEMPTS_MAX = 5  # of a transaction that the server took back for the sake of another
SERVER_VERSION_MIN = 140000
LOCK_WAIT = "30s"  # longer than any transaction of ours is open
# A node that stops in the middle of a transaction holds rows and keeps the feed back: the server gives up on it. One
# that stops in the middle of a pipeline is not idle to the server: only the last of these ends it (PostgreSQL 17 on).
_SESSION = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "30s",
    "lock_timeout": LOCK_WAIT,
    "transaction_timeout": "30s",
}

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Row]
Cursor = psycopg.AsyncCursor[Row]
T = TypeVar("T")
Work = Callable[[Connection], Awaitable[T]]

_HERE = Path(__file__).parent
_NEVER = 1_000_000_000  # times that a statement is seen before it is prepared unasked
_ARGUMENTS: dict[str, Any] = {"autocommit": True, "row_factory": dict_row, "prepare_threshold": _NEVER}
# Those that the server knows.
_CONFIGURE = """
    SELECT set_config(name, given.value, false) FROM json_each_text(%(session)s::json) given (name, value)
    JOIN pg_settings USING (name)"""
_TAKE_TIME = "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = 'transaction_timeout'"
_SPOILED = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.InternalError,
    psycopg.NotSupportedError,
    psycopg.ProgrammingError,
    psycopg.errors.ProgramLimitExceeded,
)
_LOST = ("08", "57P")  # the connection failed; the server shuts down or crashed
_AGAIN = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


def queries(file: str) -> Mapping[str, str]:
    """The named queries of a `.sql` file beside this module."""
    return query.queries(_HERE / file)


class Database:
    """A pool of connections to one database; what it gives away has autocommit and its rows are dictionaries."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[Connection] | None = None
        self._is_away = False
        self._losses = 0  # errors that may have cost a connection
        self._proved: WeakKeyDictionary[Connection, int] = WeakKeyDictionary()  # the losses that each has outlived

    async def open(self) -> None:
        """Make the pool; it connects anew by itself, with growing pauses, when the server comes back."""
        self._pool = AsyncConnectionPool(
            self._url,
            connection_class=psycopg.AsyncConnection[Row],
            kwargs=_ARGUMENTS,
            min_size=1,
            max_size=CONNECTIONS_MAX,
            timeout=CONNECT_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            configure=_configure,
            check=self._prove,
            name="headwater",
            open=False,
        )
        await self._pool.open()

    async def close(self) -> None:
        """Let go of every connection."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def read(self, work: Work[T]) -> T:
        """The result of a reading function; each of its statements sees what is committed by then.

        Where the connection is lost, `work` is carried out once more on another.
        """
        try:
            async with self._connection() as db:
                return await work(db)
        except StoreUnavailableError as error:
            if not _is_lost(error):
                raise
        async with self._connection() as db:
            return await work(db)

    async def transact(self, work: Work[T], *, before_commit: str = "", after_commit: str = "") -> T:
        """Carry out `work` in one transaction, again from its beginning where the server took it back or went away.

        The names are failpoints. An error that is not the database's is raised as it is, and nothing is written.
        """
        for attempt in range(1, ATTEMPTS_MAX + 1):
            is_done = False
            try:
                async with self._connection() as db, db.transaction():
                    result = await work(db)
                    if before_commit:
                        failpoint(before_commit)
                    is_done = True
                break
            except StoreUnavailableError as error:
                again = isinstance(error.__cause__, _AGAIN) or (_is_lost(error) and not is_done)
                if attempt == ATTEMPTS_MAX or not again:
                    raise
        if after_commit:
            failpoint(after_commit)
        return result

    async def once(self, work: Work[T], *, before_commit: str = "", after_commit: str = "") -> T:
        """Carry out `work`, one statement that is a transaction of its own and does no harm when it comes twice.

        Its answer is the commit's; where that is lost, it is sent again as `read` does. The names are failpoints.
        """
        if before_commit:
            failpoint(before_commit)
        result = await self.read(work)
        if after_commit:
            failpoint(after_commit)
        return result

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Connection]:
        """A connection of its own, outside the pool; `StartError` when there is none to be had."""
        try:
            db = await psycopg.AsyncConnection[Row].connect(
                self._url, connect_timeout=int(CONNECT_SECONDS), **_ARGUMENTS
            )
        except psycopg.Error as error:
            raise StartError(f"The database cannot be reached: {error}.") from error
        async with db:
            with translating():
                await _configure(db)
            yield db

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        if self._pool is None:
            raise StoreUnavailableError("The store is closed.")
        failures = _failures(self._pool)
        with translating():
            try:
                async with self._pool.connection(AWAY_SECONDS if self._is_away else CONNECT_SECONDS) as db:
                    self._is_away = False
                    yield db
            except PoolTimeout:
                # A wait in which no attempt to connect failed was for connections that others hold.
                self._is_away |= _failures(self._pool) > failures
                raise
            except psycopg.OperationalError:
                self._losses += 1
                raise

    async def _prove(self, db: Connection) -> None:
        """Once after each loss, ask whether this connection is there still: not each time, for the way there and back
        is half the time of a small transaction.
        """
        if self._proved.get(db) != self._losses:
            await AsyncConnectionPool.check_connection(db)
            self._proved[db] = self._losses


async def rows(db: Connection, sql: str, **parameters: Any) -> list[Row]:
    """All rows, as dictionaries."""
    found = await (await begin(db, sql, **parameters)).fetchall()
    return [_unescaped_row(one) for one in found]


async def prepared(db: Connection, sql: str, **parameters: Any) -> list[Row]:
    """All rows of a statement that is planned once a connection: what it is given does not matter for its plan."""
    cursor = await db.execute(sql.encode(), parameters, prepare=True, binary=True)
    return await cursor.fetchall()


async def row(db: Connection, sql: str, **parameters: Any) -> Row | None:
    """The first row, or None."""
    found = await (await begin(db, sql, **parameters)).fetchone()
    return None if found is None else _unescaped_row(found)


async def value(db: Connection, sql: str, **parameters: Any) -> Any:
    """The first column of the first row, or None."""
    found = await row(db, sql, **parameters)
    return None if found is None else next(iter(found.values()))


async def execute(db: Connection, sql: str, **parameters: Any) -> int:
    """Carry out a statement; how many rows it changed."""
    return (await begin(db, sql, **parameters)).rowcount


async def begin(db: Connection, sql: str, **parameters: Any) -> Cursor:
    """Send a statement; in a pipeline, its rows are there once the pipeline is over, and text in them is escaped."""
    # Rows come in binary: a payload as text would be twice as long.
    given = {name: _escaped_all(one) for name, one in parameters.items()}
    return await db.execute(sql.encode(), given, binary=True)


async def take_time(db: Connection) -> None:
    """Let the transaction under way take as long as it needs: for what touches any number of rows."""
    await db.execute(_TAKE_TIME.encode())


def json_text(rows: Any) -> str:
    """Rows as the JSON text that a set-wise statement is given."""
    text = msgspec.json.encode(rows).decode()
    has_escapes = "\\u0000" in text or "\\u0001" in text
    return msgspec.json.encode(_escaped_all(rows)).decode() if has_escapes else text


def document(value: Any) -> str:
    """A value as the JSON that a column keeps as it is."""
    return msgspec.json.encode(value).decode()


def escaped(text: str) -> str:
    """Text as PostgreSQL holds it, which knows no NUL: U+0000 and U+0001 become pairs, and the order stays."""
    if "\0" in text or "\1" in text:
        return text.replace("\1", "\1\2").replace("\0", "\1\1")
    return text


def unescaped(text: str) -> str:
    """The text that was `escaped`."""
    if "\1" in text:
        return text.replace("\1\1", "\0").replace("\1\2", "\1")
    return text


def translated(error: Exception) -> Exception:
    """The error as the platform knows it."""
    if isinstance(error, psycopg.Error) and not isinstance(error, HeadwaterError):
        translation = StoreUnavailableError(
            f"PostgreSQL refused: {str(error).strip() or type(error).__name__}.", detail=type(error).__name__
        )
        translation.__cause__ = error
        return translation
    return error


def is_spoiled(error: BaseException) -> bool:
    """Whether the statement itself was refused, for what it was given; else the database failed."""
    return isinstance(error.__cause__, _SPOILED)


def _is_lost(error: BaseException) -> bool:
    """Whether it was the connection that failed, and neither the statement nor the search for a connection."""
    cause = error.__cause__
    if not isinstance(cause, psycopg.OperationalError) or isinstance(cause, PoolTimeout):
        return False
    return cause.sqlstate is None or cause.sqlstate.startswith(_LOST)


@contextmanager
def translating() -> Iterator[None]:
    """Within the block, the database's errors are raised as the platform's."""
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from error


async def _configure(db: Connection) -> None:
    arrays.register(db)
    await db.execute(_CONFIGURE.encode(), {"session": document(_SESSION)})


def _failures(pool: AsyncConnectionPool[Connection]) -> int:
    return pool.get_stats().get("connections_errors", 0)


def _unescaped_row(found: Row) -> Row:
    for name, one in found.items():
        if isinstance(one, str) and "\1" in one:
            found[name] = unescaped(one)
    return found


def _escaped_all(given: Any) -> Any:
    if isinstance(given, str):
        return escaped(given)
    if isinstance(given, list):
        return [_escaped_all(one) for one in given] if given and not isinstance(given[0], int | bytes) else given
    if isinstance(given, Mapping):
        return {name: _escaped_all(one) for name, one in given.items()}
    return given
