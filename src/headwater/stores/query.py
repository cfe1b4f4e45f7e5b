"""SQL in files: named queries beside the code that asks them, and numbered migrations. The same in every dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Migration:
    """One step of the schema."""

    number: int
    name: str
    sql: str


def queries(path: Path) -> Mapping[str, str]:
    """The named queries of a `.sql` file."""
    parts = _NAME.split(path.read_text("utf-8"))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def migrations(folder: Path) -> Sequence[Migration]:
    """The numbered migrations of a folder, in order."""
    return [
        Migration(number=int(path.name[:4]), name=path.stem, sql=path.read_text("utf-8"))
        for path in sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    ]
