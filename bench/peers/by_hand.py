"""Peer: the script that a good engineer writes by hand: aiohttp, sqlite3 or psycopg, one upsert and one commit a page.

Usage: by_hand.py DATABASE [--port 9900], a file or a PostgreSQL URL. The table survives, so a second run is the second
load. Prints the seconds of the load alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import sys
import time
from typing import Any, Protocol

import aiohttp

COLUMNS = "id text primary key, created bigint, email text, name text, hash text, body {body}"
UPSERT = (
    "insert into customers(id, created, email, name, hash, body) values (?, ?, ?, ?, ?, ?) on conflict (id) do update "
    "set created = excluded.created, email = excluded.email, name = excluded.name, hash = excluded.hash, "
    "body = excluded.body"
)
CURSOR = "insert into state values ('cursor', ?) on conflict (key) do update set value = excluded.value"


class Save(Protocol):
    """Commits one page: its rows and the cursor after them."""

    def __call__(self, rows: list[tuple[Any, ...]], cursor: str) -> None: ...


def into_sqlite(path: str) -> Save:
    """As durable as ours is."""
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute(f"create table if not exists customers({COLUMNS.format(body='text')})")
    database.execute("create table if not exists state(key text primary key, value text)")

    def save(rows: list[tuple[Any, ...]], cursor: str) -> None:
        database.executemany(UPSERT, rows)
        database.execute(CURSOR, (cursor,))
        database.commit()

    return save


def into_postgres(url: str) -> Save:
    """The same with psycopg, whose `executemany` sends the rows in a pipeline."""
    import psycopg

    database = psycopg.connect(url)
    database.execute(f"create table if not exists customers({COLUMNS.format(body='jsonb')})")
    database.execute("create table if not exists state(key text primary key, value text)")
    database.commit()
    upsert, move = UPSERT.replace("?", "%s"), CURSOR.replace("?", "%s")

    def save(rows: list[tuple[Any, ...]], cursor: str) -> None:
        database.cursor().executemany(upsert, rows)
        database.execute(move, (cursor,))
        database.commit()

    return save


def row(customer: dict[str, Any]) -> tuple[Any, ...]:
    """What is kept of a customer."""
    body = json.dumps(customer, sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return customer["id"], customer["created"], customer["email"], customer["name"], digest, body


async def main(database: str, port: str) -> None:
    """Fetch every page and save it."""
    save = into_postgres(database) if database.startswith("postgresql://") else into_sqlite(database)
    query = {"limit": "100"}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/v1/customers", params=query) as response:
                page = await response.json()
            save([row(customer) for customer in page["data"]], page["data"][-1]["id"])
            if not page["has_more"]:
                return
            query["starting_after"] = page["data"][-1]["id"]


if __name__ == "__main__":
    started = time.perf_counter()
    asyncio.run(main(sys.argv[1], sys.argv[3] if "--port" in sys.argv else "9900"))
    print(json.dumps({"seconds": time.perf_counter() - started}))
