"""Peer: the script that a good engineer writes by hand: aiohttp, sqlite3, one upsert and one commit a page.

Usage: by_hand.py DATABASE [--port 9900]. The table survives, so a second run is the second load.
Prints the seconds of the load alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import sys
import time

import aiohttp

COLUMNS = "id text primary key, created int, email text, name text, hash text, body text"
UPSERT = (
    "insert into customers(id, created, email, name, hash, body) values (?, ?, ?, ?, ?, ?) on conflict (id) do update "
    "set created = excluded.created, email = excluded.email, name = excluded.name, hash = excluded.hash, "
    "body = excluded.body"
)
CURSOR = "insert into state values ('cursor', ?) on conflict (key) do update set value = excluded.value"


def save(database: sqlite3.Connection, customers: list[dict]) -> None:
    """One page, one commit."""
    rows = []
    for customer in customers:
        body = json.dumps(customer, sort_keys=True)
        digest = hashlib.sha256(body.encode()).hexdigest()
        rows.append((customer["id"], customer["created"], customer["email"], customer["name"], digest, body))
    database.executemany(UPSERT, rows)
    database.execute(CURSOR, (customers[-1]["id"],))
    database.commit()


async def main(path: str, port: str) -> None:
    """Fetch every page and save it."""
    database = sqlite3.connect(path)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute(f"create table if not exists customers({COLUMNS})")
    database.execute("create table if not exists state(key text primary key, value text)")
    query = {"limit": "100"}
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"http://127.0.0.1:{port}/v1/customers", params=query) as response:
                page = await response.json()
            save(database, page["data"])
            if not page["has_more"]:
                return
            query["starting_after"] = page["data"][-1]["id"]


if __name__ == "__main__":
    started = time.perf_counter()
    asyncio.run(main(sys.argv[1], sys.argv[3] if "--port" in sys.argv else "9900"))
    print(json.dumps({"seconds": time.perf_counter() - started}))
