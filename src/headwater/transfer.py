"""Carry an installation over from one store into another: every row, proved equal on both sides before it is used.

    begin ──> copying ── table by table, in batches by key ──> numbers ──> verify ──> complete
                 └── killed anywhere: goes on after the last batch          └── a row differs ──> broken

A batch and the note of how far it came are one transaction of the target, so that nothing comes twice. What is read at
the source is already in the target's form; both sides are compared in it, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from headwater.clock import Clock
from headwater.errors import StartError

BATCH_ROWS = 5_000
BATCH_BYTES_MAX = 16 * 1024 * 1024  # of text and payloads, after which a batch ends early; one row may be larger

Row: TypeAlias = tuple[Any, ...]
Key: TypeAlias = tuple[Any, ...]
State = Literal["new", "copying", "complete", "broken"]
Report = Callable[[int, int, str], None]


class MismatchError(StartError):
    """What was copied differs from its source."""

    code = "start.mismatch"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table as the target has it."""

    name: str
    type: str  # as the target names it: `boolean`, `bigint`, …


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the target; its rows are copied and compared in the order of its key."""

    name: str
    columns: Sequence[Column]
    key: Sequence[str]  # columns of the primary key, in its order

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        names = [column.name for column in self.columns]
        return tuple(row[names.index(name)] for name in self.key)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """How far a table has come."""

    after: Key | None = None  # the last key copied
    rows: int = 0


@dataclass(frozen=True, kw_only=True)
class TableResult:
    """What one table came to."""

    table: str
    rows: int
    hash: str  # over all rows in the order of the key


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """What a copy came to."""

    already: bool  # it was complete before, and nothing was done
    rows: int
    seconds: float
    tables: Sequence[TableResult] = field(default_factory=tuple)


class Source(Protocol):
    """An installation at rest: nothing changes in it while it is open."""

    def fingerprint(self) -> str:
        """What tells this source, as it stands, from another one and from a later state of itself."""
        ...

    def cover(self, tables: Sequence[Table]) -> None:
        """`SchemaError` unless each column of these tables is to be had here, and nothing here is left behind."""
        ...

    def count(self, table: Table) -> int:
        """How many rows the target will have."""
        ...

    def batch(self, table: Table, after: Key | None) -> Sequence[Row]:
        """The next rows in the order of the key, in the target's form; none at the end."""
        ...

    def newest(self) -> Mapping[str, int]:
        """The highest number that each table has ever given out, rows that are gone included."""
        ...


class Target(Protocol):
    """A database that becomes the same installation."""

    async def begin(self, fingerprint: str) -> State:
        """Make the tables, or find a copy of the same source under way; `StartError` where anything else is there."""
        ...

    async def tables(self) -> Sequence[Table]:
        """What is to be copied: a table comes after those that it refers to."""
        ...

    async def reached(self, table: Table) -> Reached:
        """How far a table has come."""
        ...

    async def append(self, table: Table, rows: Sequence[Row]) -> None:
        """Write a batch and how far it came, in one transaction."""
        ...

    async def rows(self, table: Table, *, after: Key | None, last: Key | None, limit: int) -> Sequence[Row]:
        """The rows with keys beyond `after` and up to `last`, in their order."""
        ...

    async def number_on(self, newest: Mapping[str, int]) -> None:
        """Let every number that is given out from now on be higher than these."""
        ...

    async def end(self, state: Literal["complete", "broken"], *, at: datetime, note: str) -> None:
        """Let the database be used, or refuse it for good with the reason."""
        ...


async def transfer(source: Source, target: Target, *, clock: Clock, report: Report) -> Transferred:
    """Copy what the target lacks, verify all of it, and declare it complete; `report` is told rows, of how many, words.

    Raises `MismatchError` where a row differs: the target is then refused by whoever opens it as a store.
    """
    began = clock.monotonic()
    if await target.begin(source.fingerprint()) == "complete":
        return Transferred(already=True, rows=0, seconds=0.0)
    tables = await target.tables()
    source.cover(tables)
    counts = {table.name: source.count(table) for table in tables}
    await _copy(source, target, tables, _Pace(clock, report, "copying", sum(counts.values())))
    await target.number_on(source.newest())
    try:
        results = await _verify(source, target, tables, _Pace(clock, report, "verifying", sum(counts.values())))
    except MismatchError as error:
        await target.end("broken", at=clock.now(), note=error.message)
        raise
    rows = sum(result.rows for result in results)
    await target.end("complete", at=clock.now(), note=f"{rows} rows")
    return Transferred(already=False, rows=rows, seconds=clock.monotonic() - began, tables=results)


class _Pace:
    """Words for whoever waits: what is done, how fast, and how long it will take."""

    def __init__(self, clock: Clock, report: Report, act: str, total: int) -> None:
        self._clock, self._report, self._act, self._total = clock, report, act, total
        self._began = clock.monotonic()
        self._done = self._skipped = 0

    def skip(self, rows: int) -> None:
        """So many were done before: they count, but not for the rate."""
        self._done += rows
        self._skipped += rows

    def add(self, table: str, rows: int) -> None:
        """So many more of a table are done."""
        self._done += rows
        seconds = self._clock.monotonic() - self._began
        rate = (self._done - self._skipped) / seconds if seconds > 0 else 0.0
        left = f", {(self._total - self._done) / rate:,.0f} s left" if rate else ""
        words = f"{self._act} {table}: {self._done:,} of {self._total:,} rows, {rate:,.0f} rows/s{left}"
        self._report(self._done, self._total, words)


async def _copy(source: Source, target: Target, tables: Sequence[Table], pace: _Pace) -> None:
    for table in tables:
        reached = await target.reached(table)
        pace.skip(reached.rows)
        after = reached.after
        while batch := source.batch(table, after):
            await target.append(table, batch)
            after = table.key_of(batch[-1])
            pace.add(table.name, len(batch))


async def _verify(source: Source, target: Target, tables: Sequence[Table], pace: _Pace) -> Sequence[TableResult]:
    results = []
    for table in tables:
        total, rows = sha256(), 0
        after: Key | None = None
        while batch := source.batch(table, after):
            last = table.key_of(batch[-1])
            found = await target.rows(table, after=after, last=last, limit=len(batch) + 1)
            ours, theirs = _digest(batch), _digest(found)
            if len(batch) != len(found) or ours != theirs:
                raise MismatchError(_difference(table, batch, found), hint=_AGAIN)
            total.update(ours)
            after, rows = last, rows + len(batch)
            pace.add(table.name, len(batch))
        if extra := await target.rows(table, after=after, last=None, limit=1):
            where = f"{_shown(table.key_of(extra[0]))}, after {_shown(after)}"
            raise MismatchError(f"The table {table.name} has a row that its source has not: {where}.", hint=_AGAIN)
        results.append(TableResult(table=table.name, rows=rows, hash=total.hexdigest()))
    return results


_AGAIN = "The database is marked as not usable. Make an empty one, and begin again."


def _digest(rows: Sequence[Row]) -> bytes:
    # One canonical form: lengths and kinds are part of it, so that no two rows read the same.
    return sha256(b"".join([msgspec.msgpack.encode(row) for row in rows])).digest()


def _difference(table: Table, ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    span = f"keys {_shown(table.key_of(ours[0]))} to {_shown(table.key_of(ours[-1]))}"
    first = next(
        (one for one, other in zip(ours, theirs, strict=False) if one != other), ours[min(len(theirs), len(ours) - 1)]
    )
    return (
        f"The table {table.name} differs from its source in the {span}: {len(ours)} rows at the source, "
        f"{len(theirs)} in the copy; the first difference is at {_shown(table.key_of(first))}."
    )


def _shown(key: Key | None) -> str:
    if key is None:
        return "its beginning"
    return "(" + ", ".join(part.hex() if isinstance(part, bytes) else str(part) for part in key) + ")"
