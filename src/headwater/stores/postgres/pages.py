"""Commit pages (Invariant 4): records, versions, keys, quarantine, counters and checkpoint, all or nothing.

The transaction holds the connections of its pages first, lowest id first. So pages and deliveries of one connection
follow each other on all nodes, a record's versions are numbered in the order of their commits, and no two transactions
wait for each other in a circle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec

from headwater.clock import to_micros
from headwater.errors import HeadwaterError
from headwater.failpoint import failpoint
from headwater.intention import REQUESTS_KEPT, CommitResult, PageCommit
from headwater.record import Counts
from headwater.run import RequestLog
from headwater.stores import log_row
from headwater.stores.lease import REHEARSAL, Guard, admit_page, brake, parcel_of_page
from headwater.stores.plan import Effects
from headwater.stores.postgres.connections import hold
from headwater.stores.postgres.database import Connection, Database, execute, json_text, queries, rows
from headwater.stores.postgres.ingest import Batch, prepare
from headwater.stores.postgres.log_lines import add_log_lines
from headwater.stores.postgres.numbers import Numbers

_sql = queries("pages.sql")

Accepted = Sequence[tuple[PageCommit, Effects]]


async def commit_pages(database: Database, numbers: Numbers, pages: Sequence[PageCommit]) -> Sequence[Any]:
    """A result or a refusal for each page, in order, in one transaction; an unforeseen error takes all of it back."""
    batch = await prepare([parcel_of_page(page) for page in pages], numbers)
    return await database.transact(
        lambda db: _commit(db, pages, batch), before_commit="page.before_commit", after_commit="page.after_commit"
    )


async def rehearse(database: Database, numbers: Numbers, page: PageCommit) -> CommitResult:
    """What a dry page would come to; nothing is written, so no lease is asked for."""
    batch = await prepare([parcel_of_page(page)], numbers)
    await database.read(batch.look_up)
    effects = batch.plan.weigh(batch.parcels[0])
    brake(page, REHEARSAL, batch.plan, effects)
    return effects.result


async def guards(db: Connection, run_ids: Sequence[int]) -> dict[int, Guard]:
    """The guards of runs, by run id; to be asked for while their connections are held."""
    found = await rows(db, _sql["guards"], run_ids=sorted(set(run_ids)))
    return {guard["run_id"]: Guard(**guard) for guard in found}


async def add_requests(db: Connection, guard: Guard, requests: Sequence[RequestLog]) -> None:
    """Keep what a run asked of its provider, the newest `REQUESTS_KEPT`."""
    if not requests:
        return
    asked = [
        {
            "run_id": guard.run_id,
            "number": guard.requests + number,
            "at": to_micros(request.at),
            "method": request.method,
            "url": request.url,
            "status": request.status,
            "milliseconds": request.milliseconds,
            "retries": request.retries,
            "note": request.note,
        }
        for number, request in enumerate(requests, 1)
    ]
    await execute(db, _sql["insert_requests"], rows=json_text(asked[-REQUESTS_KEPT:]))
    guard.requests += len(requests)
    await execute(db, _sql["count_requests"], run_id=guard.run_id, requests=guard.requests)
    if guard.requests > REQUESTS_KEPT:
        await execute(db, _sql["forget_requests"], run_id=guard.run_id, number=guard.requests - REQUESTS_KEPT)


async def _commit(db: Connection, pages: Sequence[PageCommit], batch: Batch) -> Sequence[Any]:
    await hold(db, {page.ref.connection_id for page in pages})
    known = await guards(db, [page.ref.run_id for page in pages])
    await batch.look_up(db)
    results: list[CommitResult | Exception] = []
    accepted: list[tuple[PageCommit, Effects]] = []
    for page, parcel in zip(pages, batch.parcels, strict=True):
        try:
            effects, is_new = admit_page(page, parcel, known.get(page.ref.run_id), batch.plan)
        except HeadwaterError as error:
            results.append(error)
            continue
        results.append(effects.result)
        if is_new:
            batch.plan.merge(effects)
            accepted.append((page, effects))
    failpoint("page.before_records")
    if accepted:
        await batch.write(db)
    failpoint("page.before_checkpoint")
    if accepted:
        await _advance(db, accepted, known)
    return results


async def _advance(db: Connection, accepted: Accepted, known: Mapping[int, Guard]) -> None:
    runs: dict[int, list[tuple[PageCommit, Effects]]] = {}
    for page, effects in accepted:
        runs.setdefault(page.ref.run_id, []).append((page, effects))
    async with db.pipeline():
        await execute(db, _sql["insert_pages"], rows=json_text([_page_row(*pair) for pair in accepted]))
        await execute(db, _sql["advance_runs"], rows=json_text([_run_row(pairs) for pairs in runs.values()]))
        if streams := [row for pairs in runs.values() for row in _stream_rows(pairs)]:
            await execute(db, _sql["advance_streams"], rows=json_text(streams))
        if windows := [_window_row(pairs) for pairs in runs.values() if pairs[0][0].ref.window_id is not None]:
            await execute(db, _sql["advance_windows"], rows=json_text(windows))
        for page, _ in accepted:
            await add_requests(db, known[page.ref.run_id], page.requests)
        await add_log_lines(db, [line for page, _ in accepted for line in log_row.of_run(page.ref, page.log)])


def _total(pairs: Accepted) -> dict[str, int]:
    total = Counts()
    for _, effects in pairs:
        total.add(effects.result.counts)
    return msgspec.structs.asdict(total)


def _page_row(page: PageCommit, effects: Effects) -> dict[str, Any]:
    return {
        "run_id": page.ref.run_id,
        "number": page.number,
        "cursor": page.cursor,
        "has_more": page.has_more,
        "started_at": to_micros(page.started_at),
        "committed_at": to_micros(page.at),
        **msgspec.structs.asdict(effects.result.counts),
    }


def _run_row(pairs: Accepted) -> dict[str, Any]:
    last = pairs[-1][0]
    return {
        "run_id": last.ref.run_id,
        "number": last.number,
        "cursor": last.cursor,
        "has_more": last.has_more,
        "lease_until": to_micros(last.at + timedelta(seconds=last.lease_seconds)),
        "connector_version": last.connector_version,
        "started_at": to_micros(pairs[0][0].started_at),
        "live_deleted": sum(sum(effects.buried.values()) for _, effects in pairs),
        **_total(pairs),
    }


def _stream_rows(pairs: Accepted) -> list[dict[str, Any]]:
    moving = [page for page, _ in pairs if page.advance and page.ref.window_id is None]
    return [{"id": page.ref.stream_id, "cursor": page.cursor, "at": to_micros(page.at)} for page in moving[-1:]]


def _window_row(pairs: Accepted) -> dict[str, Any]:
    last = pairs[-1][0]
    return {
        "id": last.ref.window_id,
        "cursor": last.cursor,
        "at": to_micros(last.at),
        "pages": len(pairs),
        **_total(pairs),
    }
