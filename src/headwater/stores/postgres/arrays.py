"""Arrays as PostgreSQL itself sends them, packed in one go: psycopg packs each element by itself.

What `array_recv` reads (https://github.com/postgres/postgres/blob/master/src/backend/utils/adt/arrayfuncs.c): how many
dimensions, whether any element is null, the type of the elements; of the dimension its length and its first index; then
of each element its length, or -1 for null, and its binary form.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct, pack
from typing import Any

from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format

_length = Struct("!i").pack
_NULL = _length(-1)
_BIGINT, _BYTEA, _TEXT = 20, 17, 25  # numbers of types, in `pg_type`


class Bigints(bytes):
    """A `bigint[]`."""

    def __new__(cls, values: Sequence[int]) -> Bigints:
        """Of numbers of 64 bits; `struct.error` for others."""
        elements = pack("!" + "iq" * len(values), *[part for value in values for part in (8, value)])
        return super().__new__(cls, _array(_BIGINT, len(values), [elements]))


class Byteas(bytes):
    """A `bytea[]`."""

    def __new__(cls, values: Sequence[bytes]) -> Byteas:
        """Of any bytes."""
        elements = [part for value in values for part in (_length(len(value)), value)]
        return super().__new__(cls, _array(_BYTEA, len(values), elements))


class Texts(bytes):
    """A `text[]`, whose elements may be null."""

    def __new__(cls, values: Sequence[str | None]) -> Texts:
        """Of texts without NUL: see `escaped`."""
        elements: list[bytes] = []
        for value in values:
            if value is None:
                elements.append(_NULL)
            else:
                encoded = value.encode()
                elements += (_length(len(encoded)), encoded)
        return super().__new__(cls, _array(_TEXT, len(values), elements, has_nulls=None in values))


def register(db: AsyncConnection[Any]) -> None:
    """Let the statements of a connection take these."""
    for kind, dumper in _DUMPERS.items():
        db.adapters.register_dumper(kind, dumper)


class _ArrayDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


class _BigintsDumper(_ArrayDumper):
    oid = 1016


class _ByteasDumper(_ArrayDumper):
    oid = 1001


class _TextsDumper(_ArrayDumper):
    oid = 1009


_DUMPERS: dict[type, type[Dumper]] = {Bigints: _BigintsDumper, Byteas: _ByteasDumper, Texts: _TextsDumper}


def _array(number: int, length: int, elements: Sequence[bytes], *, has_nulls: bool = False) -> bytes:
    head = pack("!5i", 1, has_nulls, number, length, 1) if length else pack("!3i", 0, 0, number)
    return b"".join((head, *elements))
