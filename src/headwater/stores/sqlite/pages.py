"""Commit pages (Invariant 4): records, versions, keys, quarantine, counters and checkpoint, all or nothing.

Whether a page may commit at all is asked of its run first (Invariant 9): the run is running, and its epoch is still
that of its stream or window; and the page is the next one, for a page that was lost takes its successors with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import apsw
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
from headwater.stores.sqlite.database import execute, json_text, queries, savepoint, table
from headwater.stores.sqlite.ingest import Batch
from headwater.stores.sqlite.log_lines import add_log_lines
from headwater.stores.sqlite.parcels import commit_all

_sql = queries("pages.sql")


class _DryError(Exception):
    """Takes a dry page's writes back."""


def commit_pages(db: apsw.Connection, pages: Sequence[PageCommit], *, together: bool) -> Sequence[Any]:
    """A result or an exception for each page, in order; see `commit_all`."""
    results: list[Any] = []
    ahead: list[PageCommit] = []
    for page in pages:
        if page.dry:
            results += commit_all(db, ahead, _commit_many, together=together) if ahead else []
            ahead = []
            results.append(_rehearse(db, page))
        else:
            ahead.append(page)
    return [*results, *commit_all(db, ahead, _commit_many, together=together)] if ahead else results


def guards(db: apsw.Connection, run_ids: Sequence[int]) -> dict[int, Guard]:
    """The guards of runs, by run id."""
    found = table(db, _sql["guards"], run_ids=json_text(sorted(set(run_ids))))
    return {guard["run_id"]: Guard(**guard) for guard in found}


def add_requests(db: apsw.Connection, asked: Iterable[tuple[Guard, Sequence[RequestLog]]]) -> None:
    """Keep what runs asked of their providers, the newest `REQUESTS_KEPT` of each."""
    rows: list[tuple[Any, ...]] = []
    counted: dict[int, int] = {}
    for guard, requests in asked:
        rows += [_request_row(guard, number, request) for number, request in enumerate(requests, guard.requests + 1)]
        guard.requests += len(requests)
        counted[guard.run_id] = guard.requests
    if not rows:
        return
    execute(db, _sql["insert_requests"], rows=json_text(rows))
    execute(db, _sql["count_requests"], rows=json_text(list(counted.items())))
    for run_id, count in counted.items():
        if count > REQUESTS_KEPT:
            execute(db, _sql["forget_requests"], run_id=run_id, number=count - REQUESTS_KEPT)


def _request_row(guard: Guard, number: int, request: RequestLog) -> tuple[Any, ...]:
    return (
        guard.run_id, number, to_micros(request.at), request.method, request.url, request.status,
        request.milliseconds, request.retries, request.note,
    )  # fmt: skip


def _rehearse(db: apsw.Connection, page: PageCommit) -> Any:
    try:
        with savepoint(db):
            parcel = parcel_of_page(page)
            plan = Batch(db, [parcel]).plan
            effects = plan.weigh(parcel)
            # Nothing is written, so no lease is asked for: a rehearsal needs no run in the store.
            brake(page, REHEARSAL, plan, effects)
            raise _DryError
    except _DryError:
        return effects.result
    except HeadwaterError as error:
        return error


def _commit_many(db: apsw.Connection, pages: Sequence[PageCommit]) -> Sequence[Any]:
    known = guards(db, [page.ref.run_id for page in pages])
    parcels = [parcel_of_page(page) for page in pages]
    batch = Batch(db, parcels)
    results: list[CommitResult | Exception] = []
    accepted: list[tuple[PageCommit, Effects]] = []
    for page, parcel in zip(pages, parcels, strict=True):
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
    batch.write()
    failpoint("page.before_checkpoint")
    if accepted:
        _advance(db, accepted, known)
    return results


def _advance(db: apsw.Connection, accepted: Sequence[tuple[PageCommit, Effects]], known: dict[int, Guard]) -> None:
    runs: dict[int, list[tuple[PageCommit, Effects]]] = {}
    for page, effects in accepted:
        runs.setdefault(page.ref.run_id, []).append((page, effects))
    execute(db, _sql["insert_pages"], rows=json_text([_page_row(*pair) for pair in accepted]))
    execute(db, _sql["advance_runs"], rows=json_text([_run_row(pairs) for pairs in runs.values()]))
    if streams := [row for pairs in runs.values() for row in _stream_rows(pairs)]:
        execute(db, _sql["advance_streams"], rows=json_text(streams))
    if windows := [_window_row(pairs) for pairs in runs.values() if pairs[0][0].ref.window_id is not None]:
        execute(db, _sql["advance_windows"], rows=json_text(windows))
    add_requests(db, ((known[page.ref.run_id], page.requests) for page, _ in accepted))
    add_log_lines(db, [line for page, _ in accepted for line in log_row.of_run(page.ref, page.log)])


def _total(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[int, ...]:
    total = Counts()
    for _, effects in pairs:
        total.add(effects.result.counts)
    return msgspec.structs.astuple(total)


def _page_row(page: PageCommit, effects: Effects) -> tuple[Any, ...]:
    counts = msgspec.structs.astuple(effects.result.counts)
    head = (page.ref.run_id, page.number, page.cursor, int(page.has_more))
    return (*head, *counts, to_micros(page.started_at), to_micros(page.at))


def _run_row(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[Any, ...]:
    last = pairs[-1][0]
    lease_until = to_micros(last.at + timedelta(seconds=last.lease_seconds))
    buried = sum(sum(effects.buried.values()) for _, effects in pairs)
    head = (last.ref.run_id, last.number, last.cursor, int(last.has_more), lease_until, last.connector_version)
    return (*head, to_micros(pairs[0][0].started_at), buried, *_total(pairs))


def _stream_rows(pairs: Sequence[tuple[PageCommit, Effects]]) -> list[tuple[int, str | None, int]]:
    moving = [page for page, _ in pairs if page.advance and page.ref.window_id is None]
    return [(page.ref.stream_id, page.cursor, to_micros(page.at)) for page in moving[-1:]]


def _window_row(pairs: Sequence[tuple[PageCommit, Effects]]) -> tuple[Any, ...]:
    last = pairs[-1][0]
    return (last.ref.window_id, last.cursor, to_micros(last.at), len(pairs), *_total(pairs))
