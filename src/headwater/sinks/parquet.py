"""Parquet, whose columns have one type over the whole file: it is chosen when every value is known.

changes ──> parts, values as text ──finish──> one file, each column int64, decimal, boolean, or text where none fits

A Parquet file cannot be appended to, so the parts are what an export that was cut off goes on with.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any

import msgspec

from headwater.errors import UsageError
from headwater.intention import TypeColumn
from headwater.jsonvalue import JSONValue
from headwater.sink import Change
from headwater.sinks.column import META_NAMES, Columns
from headwater.sinks.file import lock, replace_durably, sync_directory

INT64_MAX = 2**63 - 1
DIGITS_128, DIGITS_256 = 38, 76  # what the two decimal types hold
TYPED = ("integer", "decimal", "boolean")  # the others are text


class Extent(msgspec.Struct, kw_only=True):
    """What the values of a typed column need so far."""

    whole: int = 1  # digits before the point
    scale: int = 0  # digits after it
    is_wide: bool = False  # a whole number beyond int64
    is_text: bool = False  # something of another type

    def take(self, value: JSONValue, kind: str) -> str | None:
        """Widen for a value; the value as plain text."""
        if value is None:
            return None
        if isinstance(value, bool) or kind == "boolean":
            self.is_text = self.is_text or not isinstance(value, bool) or kind != "boolean"
            return str(value).lower() if isinstance(value, bool) else str(value)
        try:
            number = Decimal(value) if isinstance(value, (int, str, Decimal)) else None
        except InvalidOperation:
            number = None
        if number is None or not number.is_finite() or abs(number.adjusted()) > DIGITS_256:
            self.is_text = True
            return str(value)
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int), "it is finite"
        self.scale = max(self.scale, -exponent)
        self.whole = max(self.whole, number.adjusted() + 1)
        self.is_wide = self.is_wide or number.copy_abs() > INT64_MAX
        return format(number, "f")


class Manifest(msgspec.Struct, kw_only=True):
    """What stands beside the parts."""

    request: Mapping[str, str]
    position: str
    parts: int
    extents: dict[str, Extent]


class ParquetSink:
    """A `Sink` of one Parquet file, which appears when it is complete."""

    def __init__(self, path: Path, *, request: Mapping[str, str], columns: Sequence[TypeColumn] | None = None) -> None:
        self._arrow = _arrow()
        self._path = path
        self._request = dict(request)
        self._columns = Columns.of(columns)
        self._directory = path.with_name(path.name + ".parts")
        self._manifest_path = self._directory / "manifest.json"
        self._manifest = self._fresh()
        self._lock: IO[bytes] | None = None

    async def open(self) -> str | None:
        """See `Sink`."""
        return await asyncio.to_thread(self._open)

    async def write(self, changes: Sequence[Change], *, position: str) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._write, changes, position)

    async def finish(self) -> None:
        """See `Sink`."""
        await asyncio.to_thread(self._finish)

    async def close(self) -> None:
        """See `Sink`."""
        self._unlock()

    def _fresh(self) -> Manifest:
        extents = {column.name: Extent() for column in self._columns.columns if column.kind in TYPED}
        return Manifest(request=self._request, position="", parts=0, extents=extents)

    def _open(self) -> str | None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = (self._directory / "lock").open("wb")
        except OSError as error:
            raise UsageError(f"{self._path} cannot be written: {error.strerror}.") from error
        try:
            lock(self._lock, self._path)
            found = self._read_manifest()
        except BaseException:
            self._unlock()
            raise
        self._manifest = found or self._fresh()
        return found.position if found else None

    def _read_manifest(self) -> Manifest | None:
        try:
            found = msgspec.json.decode(self._manifest_path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise UsageError(f"{self._manifest_path} is not readable.", hint="Remove its folder.") from error
        if dict(found.request) != self._request:
            raise UsageError(
                f"{self._directory} was begun by another export.", hint="Repeat that one, or remove the folder."
            )
        return found

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _write(self, changes: Sequence[Change], position: str) -> None:
        # A part beyond the manifest is the rest of a write that was cut off: it is written over.
        extents = msgspec.json.decode(msgspec.json.encode(self._manifest.extents), type=dict[str, Extent])
        part = self._part(self._manifest.parts)
        self._arrow.parquet.write_table(self._table(changes, extents), part)
        _sync(part)
        self._manifest = Manifest(
            request=self._request, position=position, parts=self._manifest.parts + 1, extents=extents
        )
        replace_durably(self._manifest_path, msgspec.json.encode(self._manifest))

    def _finish(self) -> None:
        """Invisible until the rename: a crash before it finishes anew from the parts."""
        fresh = self._path.with_name(self._path.name + ".new")
        schema = self._schema(self._manifest.extents)
        with self._arrow.parquet.ParquetWriter(fresh, schema, compression="zstd") as writer:
            for number in range(self._manifest.parts):
                writer.write_table(self._arrow.parquet.read_table(self._part(number)).cast(schema))
        _sync(fresh)
        fresh.replace(self._path)
        sync_directory(self._path.parent)
        shutil.rmtree(self._directory)

    def _part(self, number: int) -> Path:
        return self._directory / f"part-{number:06}.parquet"

    def _table(self, changes: Sequence[Change], extents: Mapping[str, Extent]) -> Any:
        rows = [self._columns.values(change) for change in changes]
        data: dict[str, list[Any]] = {
            name: [getattr(change, name.removeprefix("_")) for change in changes] for name in META_NAMES
        }
        for place, column in enumerate(self._columns.columns):
            values = [row[place] for row in rows]
            if column.kind in TYPED:
                data[column.name] = [extents[column.name].take(value, column.kind) for value in values]
            else:
                data[column.name] = values
        return self._arrow.table(data, schema=self._schema(None))

    def _schema(self, extents: Mapping[str, Extent] | None) -> Any:
        """The types of the whole file; without extents those of a part, where everything else is text."""
        arrow = self._arrow
        instant = arrow.timestamp("us", tz="UTC")
        meta = {"_sequence": arrow.int64(), "_version": arrow.int64(), "_as_of": instant, "_observed_at": instant}
        fields = [(name, meta.get(name, arrow.string())) for name in META_NAMES]
        for column in self._columns.columns:
            if column.kind in TYPED and extents is not None:
                fields.append((column.name, _column_type(arrow, column.kind, extents[column.name])))
            else:
                fields.append((column.name, arrow.string()))
        return arrow.schema(fields)


def _column_type(arrow: Any, kind: str, extent: Extent) -> Any:
    """The narrowest type that holds every value exactly."""
    digits = extent.whole + extent.scale
    if extent.is_text or digits > DIGITS_256:
        return arrow.string()
    if kind == "boolean":
        return arrow.bool_()
    if kind == "integer" and extent.scale == 0 and not extent.is_wide:
        return arrow.int64()
    if digits <= DIGITS_128:
        return arrow.decimal128(DIGITS_128, extent.scale)
    return arrow.decimal256(DIGITS_256, extent.scale)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError(
            "Parquet needs pyarrow, which is not installed.", hint="Install it with `pip install headwater[parquet]`."
        ) from error
    return pyarrow
