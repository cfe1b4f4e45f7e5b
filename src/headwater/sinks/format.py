"""The file formats that an export can take, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from headwater.errors import UsageError, near_miss
from headwater.intention import TypeColumn
from headwater.sink import Sink
from headwater.sinks.csv import CSVSink
from headwater.sinks.file import AppendedFile
from headwater.sinks.jsonl import JSONLinesSink
from headwater.sinks.parquet import ParquetSink

SUFFIXES: Mapping[str, str] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
FORMATS = ("jsonl", "csv", "parquet")


def format_of(path: Path) -> str:
    """The format that a file's name stands for; `UsageError` for none."""
    found = SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise UsageError(f"`{path.name}` does not name its format.", hint=f"Give one of {', '.join(FORMATS)}.")
    return found


def file_sink(
    path: Path,
    *,
    format: str,
    request: Mapping[str, str],
    columns: Sequence[TypeColumn] | None = None,
    continues: bool = False,
) -> Sink:
    """A sink that writes a file.

    `request` says in words what is exported (what, connection, type …): only the same request goes on with a file that
    was cut off. `columns` gives CSV and Parquet the fields of a type; without, they hold the payload as JSON in `data`.
    With `continues` a finished JSONL or CSV file is gone on with, too; a Parquet file is always written anew.
    """
    if format not in FORMATS:
        raise UsageError(f"There is no format `{format}`.", hint=near_miss(format, FORMATS) or f"Known: {FORMATS}.")
    given = {**request, "format": format, "columns": ",".join(f"{each.name}:{each.kind}" for each in columns or ())}
    if format == "parquet":
        return ParquetSink(path, request=given, columns=columns)
    file = AppendedFile(path, request=given, continues=continues)
    return CSVSink(file, columns) if format == "csv" else JSONLinesSink(file)
