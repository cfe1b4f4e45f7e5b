"""Limit: the same writes straight into SQLite by apsw, 10,000 records a transaction, FULL; no fetching, no checks.

Usage: raw_sqlite.py DATABASE RECORDS. Prints the seconds of the load alone: the records are made before.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import apsw

sys.path.insert(0, str(Path(__file__).parent.parent))
from provider import customer

BATCH = 10_000
TABLES = """
create table current(id text primary key, version int, hash blob, sequence int) without rowid;
create table history(sequence integer primary key, id text, version int, hash blob, at real, body blob);
create table checkpoint(stream text primary key, cursor text);
"""
KNOWN = "select current.id, version, hash from json_each(?) wanted join current on current.id = wanted.value"
APPEND = "insert into history(sequence, id, version, hash, at, body) values (?, ?, ?, ?, 0, ?)"
POINT = (
    "insert into current(id, version, hash, sequence) values (?, ?, ?, ?) on conflict (id) do update "
    "set version = excluded.version, hash = excluded.hash, sequence = excluded.sequence"
)


def load(database: apsw.Connection, rows: list[tuple[str, bytes, bytes]]) -> None:
    """Write what is new, in batches."""
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        database.execute("begin immediate")
        known = {row[0]: row[2] for row in database.execute(KNOWN, (json.dumps([row[0] for row in batch]),))}
        sequence = next(database.execute("select coalesce(max(sequence), 0) from history"))[0]
        fresh = [
            (sequence + offset, *row) for offset, row in enumerate((r for r in batch if known.get(r[0]) != r[1]), 1)
        ]
        database.executemany(APPEND, [(place, key, 1, digest, body) for place, key, digest, body in fresh])
        database.executemany(POINT, sorted((key, 1, digest, place) for place, key, digest, _ in fresh))
        database.execute("insert or replace into checkpoint values ('customers', ?)", (batch[-1][0],))
        database.execute("commit")


def main(path: str, records: int) -> None:
    """See the module."""
    rows = []
    for index in range(records):
        record = customer(index)
        body = json.dumps(record, separators=(",", ":")).encode()
        rows.append((record["id"], hashlib.blake2b(body, digest_size=16).digest(), body))
    database = apsw.Connection(path)
    for setting in ("journal_mode = wal", "synchronous = full", "wal_autocheckpoint = 10000", "cache_size = -65536"):
        list(database.execute(f"pragma {setting}"))
    database.execute(TABLES)
    started = time.perf_counter()
    load(database, rows)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
