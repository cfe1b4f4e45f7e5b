"""The file's own facts for `doctor`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import apsw

from headwater.intention import Finding
from headwater.stores.sqlite.database import MEMORY, value
from headwater.stores.sqlite.migrate import known, schema_version

SQLITE_MIN = (3, 51, 3)  # the WAL-reset bug, which can corrupt a file, is mended from here on
FULL_CHECK_BYTES_MAX = 256 * 1024 * 1024  # a larger file has a quick check: no index is compared
WAL_BYTES_MAX = 512 * 1024 * 1024  # more means that a reader keeps the log from being moved into the file
FREE_BYTES_MIN = 1024 * 1024 * 1024
_PROBLEMS_SHOWN = 3


def examine(db: apsw.Connection, path: str) -> Sequence[Finding]:
    """See `Store.examine`."""
    findings = [_version(), _schema(db), _integrity(db), _durability(db, path)]
    return [*findings, *([] if path == MEMORY else _sizes(Path(path)))]


def _version() -> Finding:
    text = apsw.sqlite_lib_version()
    version = tuple(int(part) for part in text.split("."))
    return Finding(
        name="sqlite version",
        ok=version >= SQLITE_MIN,
        fact=text,
        hint="" if version >= SQLITE_MIN else "Install a newer apsw: this SQLite can corrupt its log.",
    )


def _schema(db: apsw.Connection) -> Finding:
    found, newest = schema_version(db), known()[-1].number
    return Finding(name="schema", ok=found == newest, fact=f"{found} of {newest}")


def _integrity(db: apsw.Connection) -> Finding:
    size = value(db, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
    check = "integrity_check" if size <= FULL_CHECK_BYTES_MAX else "quick_check"
    problems = [str(found[0]) for found in db.execute(f"PRAGMA {check}({_PROBLEMS_SHOWN})").fetchall()]
    ok = problems == ["ok"]
    return Finding(
        name="integrity",
        ok=ok,
        fact=f"{check}: {'; '.join(problems)}",
        hint="" if ok else "Stop, keep a copy of the file, and restore the last good one.",
    )


def _durability(db: apsw.Connection, path: str) -> Finding:
    mode = str(value(db, "PRAGMA journal_mode"))
    synchronous = int(value(db, "PRAGMA synchronous"))
    names = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}
    ok = path == MEMORY or (mode == "wal" and synchronous >= 2)
    return Finding(
        name="durability",
        ok=ok,
        fact=f"journal {mode}, synchronous {names.get(synchronous, synchronous)}",
        hint="" if ok else "Another program changed the journal mode; put it back to WAL.",
    )


def _sizes(path: Path) -> list[Finding]:
    log = path.with_name(path.name + "-wal")
    log_bytes = log.stat().st_size if log.exists() else 0
    free = shutil.disk_usage(path.resolve().parent).free
    return [
        Finding(name="file size", ok=True, fact=f"{path.stat().st_size / 1e6:.1f} MB"),
        Finding(
            name="log size",
            ok=log_bytes <= WAL_BYTES_MAX,
            fact=f"{log_bytes / 1e6:.1f} MB",
            hint="" if log_bytes <= WAL_BYTES_MAX else "Some reader holds an old state open: look for it.",
        ),
        Finding(
            name="free disk",
            ok=free >= FREE_BYTES_MIN,
            fact=f"{free / 1e9:.1f} GB",
            hint="" if free >= FREE_BYTES_MIN else "Free some space: a full disk stops the platform.",
        ),
    ]
