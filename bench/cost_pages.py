"""The time of each page of the dashboard at 1,000 streams and a million records. Usage: cost_pages.py DATABASE."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from contextlib import closing
from datetime import timedelta
from statistics import median

import httpx
from starlette.applications import Starlette
from store_of_streams import NOW, filled

from headwater.api.access import Caller
from headwater.clock import SystemClock, to_micros
from headwater.cron import previous_ticks
from headwater.dashboard import views
from headwater.dashboard.strip import STRIP_TICKS
from headwater.delivery import NewDelivery
from headwater.intention import PageCommit, RunEnd
from headwater.record import Emission
from headwater.run import RunState, Window
from headwater.store import Store
from headwater.stores.sqlite.store import SQLiteStore

CONNECTIONS, STREAMS = 100, 10
RECORDS = 1_000_000
PAGE_RECORDS = 1_000
DELIVERIES = 20_000
ROUNDS = 7
PAGES = (
    "/", "/?status=failing", "/?page=2", "/connections/c7", "/connections/c7/runs", "/connections/c7/deliveries",
    "/connections/c7/records", "/connections/c7/activity", "/connections/c7/streams/things_3", "/runs/1",
    "/deliveries", "/deliveries?state=dead", "/deliveries/1", "/records", "/records?type=customer&q=cus_5",
    "/records/c0/customer/cus_50000", "/backfills", "/backfills/1", "/quarantine", "/alerts", "/system", "/audit",
    "/acts/deliveries.replay?connection=c0",
)  # fmt: skip


async def ingested(store: Store) -> None:
    """A million records over ten connections, a run of many pages each; some deliveries; a backfill."""
    share = RECORDS // 10
    for number in range(10):
        (state,) = await store.streams(at=NOW, connection=f"c{number}", stream="things_0")
        run_id = await store.trigger_run(state.id, at=NOW)
        ref = await store.admit_run(run_id, at=NOW, lease_seconds=3600)
        await store.begin_run(ref, at=NOW, lease_seconds=3600)
        pages = []
        for page in range(share // PAGE_RECORDS):
            first = number * share + page * PAGE_RECORDS
            pages.append(
                store.commit_page(
                    PageCommit(
                        ref=ref, number=page + 1, emissions=[_emission(first + one) for one in range(PAGE_RECORDS)],
                        quarantined=(), cursor=str(page), has_more=page + 1 < share // PAGE_RECORDS, origin="poll",
                        connector_version="1", started_at=NOW, at=NOW, lease_seconds=3600,
                    )
                )
            )  # fmt: skip
        await asyncio.gather(*pages)
        await store.finish_run(RunEnd(ref=ref, at=NOW, state=RunState.SUCCEEDED))
    first_connection = (await store.connections())[0]
    await store.append_deliveries([_delivery(first_connection.id, number) for number in range(DELIVERIES)])
    (state,) = await store.streams(at=NOW, connection="c0", stream="things_1")
    days = [Window(NOW - timedelta(days=one), NOW - timedelta(days=one - 1)) for one in range(1000, 0, -1)]
    await store.add_backfill(state.id, span=Window(days[0].start, NOW), windows=days, at=NOW)


def ticked(path: str) -> None:
    """A run for each of the last 90 ticks of every stream, as months of schedule leave them; by SQL, for speed."""
    at = SystemClock().now()
    with closing(sqlite3.connect(path)) as db, db:
        streams = db.execute("SELECT id, connection_id, schedule, timezone FROM streams").fetchall()
        rows = [
            (connection_id, stream_id, *[to_micros(tick)] * 3, to_micros(tick) + 5_000_000)
            for stream_id, connection_id, line, zone in streams
            for tick in previous_ticks(line, zone, at, STRIP_TICKS)
        ]
        db.executemany(
            "INSERT INTO runs (connection_id, stream_id, trigger, state, priority, attempt, scheduled_at, due_at,"
            " started_at, finished_at, pages, unchanged) VALUES (?, ?, 'tick', 'succeeded', 20, 1, ?, ?, ?, ?, 1, 100)",
            rows,
        )
        db.execute(
            "UPDATE streams SET last_success_at = r.at, last_attempt_at = r.at FROM"
            " (SELECT stream_id, max(finished_at) AS at FROM runs GROUP BY stream_id) r WHERE r.stream_id = streams.id"
            " AND streams.id % 10 > 0"
        )


def _emission(number: int) -> Emission:
    payload = json.dumps({"id": f"cus_{number}", "name": f"Customer {number}", "email": f"c{number}@example.com"})
    return Emission.of(
        type="customer", stream="things_0", source_id=f"cus_{number}", payload=payload.encode(), key=None,
        as_of=to_micros(NOW),
    )  # fmt: skip


def _delivery(connection_id: int, number: int) -> NewDelivery:
    return NewDelivery(
        connection_id=connection_id, received_at=to_micros(NOW), provider_id=f"evt_{number}",
        event_type="customer.updated", headers=b"{}", body=b"{}",
    )  # fmt: skip


async def measured(store: Store) -> dict[str, float]:
    """Median seconds of each page, asked in this process."""

    async def guard(_: object) -> Caller:
        return Caller(name="bench", scopes=frozenset({"read", "payloads", "operate"}))

    app = Starlette(routes=views.routes(store=store, clock=SystemClock(), guard=guard))  # type: ignore[arg-type]
    found = {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bench") as client:
        for path in PAGES:
            seconds = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                answer = await client.get(path)
                seconds.append(time.perf_counter() - started)
                assert answer.status_code == 200, (path, answer.status_code)
            found[path] = median(seconds)
    return found


async def main(path: str) -> None:
    """See the module."""
    store = SQLiteStore(path, SystemClock())
    await store.open()
    await filled(store, connections=CONNECTIONS, streams=STREAMS, due=CONNECTIONS)
    await ingested(store)
    ticked(path)
    found = await measured(store)
    await store.close()
    slowest = max(found, key=lambda one: found[one])
    print(json.dumps({"seconds": found[slowest], "slowest": slowest, "pages": found}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
