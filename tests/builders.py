"""What tests are built from: each builder gives a plain, valid value and takes what the test is about."""

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from headwater.canonical.schema import Canonical, from_struct
from headwater.catalog import Connector, Stream, Webhooks
from headwater.cron import next_tick
from headwater.intention import StreamDeclaration
from headwater.invoke import LiveConnection, SecretVersion
from headwater.project import Project
from headwater.redaction import Redactor
from headwater.run import Priority, RunRef

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Customer(Canonical):
    type_name: ClassVar[str] = "customer"
    id: str
    name: str = ""


def make_ref(**overrides):
    fields = {
        "run_id": 1, "connection_id": 1, "stream_id": 1, "stream_key": "customers", "partition": "",
        "trigger": "tick", "priority": Priority.POLL, "epoch": 1, "attempt": 1, "cursor": None,
    }  # fmt: skip
    return RunRef(**(fields | overrides))


def make_stream(key="customers", **overrides):
    return Stream(key, **({"mode": "poll", "schedule": "*/15 * * * *"} | overrides))


def make_catalog(*streams, **overrides):
    """A connector of the given streams: by default `customers`, polled, and `events`, by webhook."""
    fields = {
        "key": "fake", "name": "Fake", "version": "0.1.0",
        "streams": streams or (make_stream(), Stream("events", mode="webhook")),
        "webhooks": Webhooks(endpoint="/webhooks/fake", auth="hmac_sha256"),
    }  # fmt: skip
    return Connector(**(fields | overrides))


def make_project(sync_routes=None, **overrides):
    """A project in memory: plain functions are its routes."""
    fields = {
        "path": Path("fake"), "connector": make_catalog(), "content_hash": "0" * 64,
        "types": {"customer": from_struct(Customer)}, "sync_routes": sync_routes or {}, "webhook_route": None,
        "test_route": None,
    }  # fmt: skip
    return Project(**(fields | overrides))


def make_live(stored, project, clock, *, settings=None, secrets=None, http=None):
    """A live connection whose secrets are known, without any key ring."""
    secrets = secrets or {}
    return LiveConnection(
        stored=stored,
        project=project,
        settings=settings or {},
        secrets=secrets,
        versions={name: [SecretVersion(value=value, expires_at=None)] for name, value in secrets.items()},
        redactor=Redactor(secrets.values()),
        http=http,
        clock=clock,
    )


def open_memory_store(clock):
    return open_store_at(clock)


@asynccontextmanager
async def open_store_at(clock, path=":memory:"):
    from headwater.stores.sqlite.store import SQLiteStore

    store = SQLiteStore(path, clock)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def seeded_stream(store, clock, *, connection="acme", catalog=None, partition=""):
    """A stored connection whose catalog is declared; polls are due at their next tick."""
    catalog = catalog or make_catalog()
    at = clock.now()
    stored = await store.add_connection(
        key=connection, connector=catalog.key, tenant=None, endpoint_id=f"endpoint-{connection}", settings={},
        secrets={}, at=at,
    )  # fmt: skip
    declarations = [
        StreamDeclaration(
            stream=stream.key, partition=partition, mode=stream.mode, schedule=stream.schedule,
            timezone=stream.timezone, expect_within_seconds=None,
            next_tick_at=next_tick(stream.schedule, stream.timezone, at) if stream.schedule else None,
        )
        for stream in catalog.streams
    ]  # fmt: skip
    await store.declare_streams(stored.id, declarations, at=at)
    return stored
