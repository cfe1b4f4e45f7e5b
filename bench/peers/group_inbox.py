"""Peer: the prototype of a PostgreSQL inbox with group commit: bare ASGI, verify, one insert for all that has gathered.

Served by uvicorn as `group_inbox:app`; DATABASE is the URL, SECRET the signing secret. One flusher: what arrives while
a commit is under way is the next one. Of each delivery it keeps the body, its id and its instant, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time

import psycopg

KEY = hmac.new(os.environ["SECRET"].encode(), digestmod=hashlib.sha256)
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
TABLE = (
    "create table if not exists inbox(sequence bigint generated always as identity primary key, "
    "event_id text unique, received float8, body bytea)"
)
INSERT = (
    "insert into inbox(event_id, received, body) select * from unnest(%b::text[], %b::float8[], %b::bytea[]) "
    "on conflict (event_id) do nothing"
)


class Inbox:
    """Group commit without a timer."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._waiting: list[tuple[str, float, bytes, asyncio.Future[None]]] = []
        self._database: psycopg.AsyncConnection | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def put(self, event_id: str, body: bytes) -> None:
        """Return once it is committed."""
        stored = asyncio.get_running_loop().create_future()
        self._waiting.append((event_id, time.time(), body, stored))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        await stored

    async def _flush(self) -> None:
        if self._database is None:
            self._database = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            await self._database.execute(TABLE)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            columns = [list(column) for column in zip(*batch, strict=True)]
            await self._database.execute(INSERT, columns[:3])
            for stored in columns[3]:
                stored.set_result(None)
        self._flushing = None


inbox = Inbox(os.environ.get("DATABASE", ""))


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
        await inbox.put(json.loads(body)["id"], body)
        status = 202
    await send({"type": "http.response.start", "status": status, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"ok"})
