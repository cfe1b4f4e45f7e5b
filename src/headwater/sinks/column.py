"""A change as a row of named columns: what is known of every change, then the fields of its canonical type.

The names of the former begin with an underscore, so that a type may have a field `id` or `version` of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headwater import jsonvalue
from headwater.intention import TypeColumn
from headwater.jsonvalue import JSONValue, canonical_bytes
from headwater.sink import Change

META_NAMES = (
    "_sequence", "_op", "_connection", "_stream", "_type", "_id", "_version", "_as_of", "_observed_at", "_origin",
)  # fmt: skip
DATA = TypeColumn(name="data", kind="json")  # the whole payload, where a row may be of any type


@dataclass(frozen=True)
class Columns:
    """The payload columns of a table; of `data` alone where no type was given."""

    columns: tuple[TypeColumn, ...]

    @classmethod
    def of(cls, columns: Sequence[TypeColumn] | None) -> Columns:
        """These, or `data` alone."""
        return cls(tuple(columns) if columns else (DATA,))

    @property
    def names(self) -> tuple[str, ...]:
        """All column names, in order."""
        return (*META_NAMES, *(column.name for column in self.columns))

    def values(self, change: Change) -> list[JSONValue]:
        """The payload values of a change, one a column; None for what it does not have."""
        if change.data is None:
            return [None] * len(self.columns)
        if self.columns == (DATA,):
            return [bytes(change.data).decode()]
        payload = jsonvalue.decode(bytes(change.data))
        fields = payload if isinstance(payload, Mapping) else {}
        return [_flat(fields.get(column.name), column) for column in self.columns]


def _flat(value: JSONValue, column: TypeColumn) -> JSONValue:
    """Values that have no cell of their own become JSON text."""
    if value is None or (isinstance(value, str) and column.kind != "json"):
        return value
    if column.kind in ("json", "text") or isinstance(value, (Sequence, Mapping)):
        return canonical_bytes(value).decode()
    return value
