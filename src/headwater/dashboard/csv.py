"""Lists as CSV: one line per entry, and nothing in it that a spreadsheet would take for a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.responses import Response

from headwater.dashboard.page import SECURITY_HEADERS

FORMULA_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A list as rows under names."""

    name: str  # of the file, without its ending
    columns: Sequence[str]
    rows: Iterable[Sequence[Any]]  # read once, if the file is asked for


def csv_response(table: Table) -> Response:
    """The table as a file (RFC 4180, UTF-8)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(table.columns)
    writer.writerows([[_cell(value) for value in row] for row in table.rows])
    headers = {**SECURITY_HEADERS, "Content-Disposition": f'attachment; filename="{table.name}.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, int | float):
        return value
    text = str(value)
    # OWASP ASVS 5.0, 1.2.10: what a provider chose must not run where the file is opened.
    return f"'{text}" if text.startswith(FORMULA_BEGINNINGS) else text
