"""Peer: the prototype of an inbox with group commit: bare ASGI, verify, one transaction for all that has gathered.

Served by uvicorn as `group_inbox:app`; DATABASE is a SQLite file or a PostgreSQL URL, SECRET the signing secret. One
flusher: what arrives while a commit is under way is the next one. Of each delivery it keeps the body, its id, its hash
and its instant, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable

import orjson
import psycopg

KEY = hmac.new(os.environ["SECRET"].encode(), digestmod=hashlib.sha256)
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]

Row = tuple[str, bytes, float, bytes]  # id, hash, instant, body
Save = Callable[[list[Row]], Awaitable[None]]


def into_sqlite(path: str) -> Save:
    """As durable as ours is; in a thread, so that the loop takes what comes meanwhile."""
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.execute("pragma wal_autocheckpoint = 4000")
    database.execute(
        "create table if not exists inbox(sequence integer primary key, event_id text unique, digest blob, "
        "received real, body blob)"
    )

    def write(rows: list[Row]) -> None:
        database.execute("begin immediate")
        database.executemany(
            "insert into inbox(event_id, digest, received, body) values (?, ?, ?, ?) on conflict (event_id) do nothing",
            rows,
        )
        database.execute("commit")

    async def save(rows: list[Row]) -> None:
        await asyncio.get_running_loop().run_in_executor(None, write, rows)

    return save


def into_postgres(url: str) -> Save:
    """One insert, which is its own transaction: one way there and back."""
    with psycopg.connect(url, autocommit=True) as setup:
        setup.execute(
            "create table if not exists inbox(sequence bigint generated always as identity primary key, "
            "event_id text unique, digest bytea, received float8, body bytea)"
        )
    database: psycopg.AsyncConnection | None = None

    async def save(rows: list[Row]) -> None:
        nonlocal database
        if database is None:
            database = await psycopg.AsyncConnection.connect(url, autocommit=True)
        await database.execute(
            "insert into inbox(event_id, digest, received, body) "
            "select * from unnest(%b::text[], %b::bytea[], %b::float8[], %b::bytea[]) "
            "on conflict (event_id) do nothing",
            [list(column) for column in zip(*rows, strict=True)],
        )

    return save


class Inbox:
    """Group commit without a timer."""

    def __init__(self, save: Save) -> None:
        self._save = save
        self._waiting: list[tuple[Row, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, event_id: str, body: bytes) -> None:
        """Return once it is committed."""
        stored = asyncio.get_running_loop().create_future()
        row = event_id, hashlib.blake2b(body, digest_size=16).digest(), time.time(), body
        self._waiting.append((row, stored))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await stored

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._save([row for row, _ in batch])
            for _, stored in batch:
                stored.set_result(None)
        self._flushing = None


DATABASE = os.environ["DATABASE"]
inbox = Inbox((into_postgres if DATABASE.startswith("postgresql://") else into_sqlite)(DATABASE))


async def app(scope, receive, send):
    """See the module."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    header = next(value for name, value in scope["headers"] if name == b"stripe-signature").decode()
    fields = dict(part.split("=", 1) for part in header.split(","))
    digest = KEY.copy()
    digest.update(fields["t"].encode() + b"." + body)
    status = 401
    if hmac.compare_digest(digest.hexdigest(), fields["v1"]):
        await inbox.put(orjson.loads(body)["id"], body)
        status = 202
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
